"""What a model does with a state before it reads on: brings it to its own precision, or says why it cannot go on from it.

Here too is what no mixer has to think of: a piece of a text that is empty, and a batch without rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

Read = Callable[[Tensor, Any], tuple[Tensor, Any]]


class StateMismatch(ValueError):
    """A state from which this model cannot go on with this text; the message says why."""


def read_on(read: Read, tokens: Tensor, state: Any, embedding: Tensor) -> tuple[Tensor, Any]:
    """`read(tokens, state)`, with what the contract says about any tokens [b, t] and any state.

    An empty piece gives logits [b, 0, vocab] and the state as it was; a batch without rows, logits [0, t, vocab] and a state
    without rows. A state of another floating dtype goes on in the dtype that the model itself would keep (`fitted`).
    Raises StateMismatch for a state of another number of rows, another device or another model.
    """
    if tokens.dim() != 2:
        raise ValueError(f"A model reads tokens [batch, time], not a tensor of shape {list(tokens.shape)}.")
    if state is not None:
        state = fitted(state, tokens, embedding.dtype)
    rows, time = tokens.shape
    if not time:
        return embedding.new_zeros(rows, 0, embedding.shape[0], dtype=_computed(embedding)), state
    if rows:
        return _told(read, tokens, state)
    logits, state = _told(read, tokens.new_zeros(1, time), _tensors(state, lambda x: x.new_zeros(1, *x.shape[1:])))
    return logits[:0], _tensors(state, lambda x: x[:0].clone())


def fitted(state: Any, tokens: Tensor, kind: torch.dtype) -> Any:
    """The state with each floating or complex tensor in a dtype that a model with parameters of dtype `kind` computes in.

    Those are `kind`, float32 where that is wider, and autocast's own; any other is cast to the wider of the first two. What
    fits already is the same object. Raises StateMismatch for other rows or another device than the tokens'.
    """
    wide, kept = _kept(kind, _autocast(tokens.device))
    if _fits(state, len(tokens), tokens.device, kept):
        return state
    leaves, form = tree_flatten(state)
    new = [_fitted(leaf, tokens, kept, wide) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return state if all(a is b for a, b in zip(leaves, new, strict=True)) else tree_unflatten(new, form)


@cache
def _kept(kind: torch.dtype, reduced: torch.dtype | None) -> tuple[torch.dtype, frozenset[torch.dtype | None]]:
    """The dtype that others are cast to, and those that stay."""
    wide = torch.promote_types(kind, torch.float32)
    return wide, frozenset({kind, wide, wide.to_complex(), reduced})


def _fits(state: Any, rows: int, device: torch.device, kept: frozenset) -> bool:
    """Whether a state of tuples, tensors and numbers goes on as it is. Asked at every token: pytree would take longer."""
    if isinstance(state, Tensor):
        return state.dim() > 0 and state.shape[0] == rows and state.dtype in kept and state.device == device
    if type(state) in (tuple, list):
        return all(_fits(part, rows, device, kept) for part in state)
    return state is None or type(state) is int


def _fitted(leaf: Tensor, tokens: Tensor, kept: frozenset, wide: torch.dtype) -> Tensor:
    if leaf.dim() == 0 or leaf.shape[0] != len(tokens):
        found = f"{leaf.shape[0]} row(s)" if leaf.dim() else "no rows"
        raise StateMismatch(
            f"A state of {found} cannot go on with a text of {len(tokens)}: choose or repeat the rows of its tensors."
        )
    if leaf.device != tokens.device:
        raise StateMismatch(f"The state lies on {leaf.device}, the text on {tokens.device}: move one of them.")
    if leaf.dtype in kept or not (leaf.is_floating_point() or leaf.is_complex()):
        return leaf
    return leaf.to(wide.to_complex() if leaf.is_complex() else wide)


def _told(read: Read, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
    """`read(tokens, state)`; where only the state makes it fail, that is said."""
    try:
        return read(tokens, state)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if state is None or isinstance(error, StateMismatch | torch.OutOfMemoryError) or not _reads(read, tokens):
            raise
        raise StateMismatch(
            f"This model reads the text alone but not after the state that it was given ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}): a state goes on only in a model of the same class, settings and size."
        ) from error


def _reads(read: Read, tokens: Tensor) -> bool:
    try:
        with torch.no_grad():
            read(tokens, None)
    except Exception:  # then the state is not what it fails by, and the first error is the one to tell
        return False
    return True


def _computed(embedding: Tensor) -> torch.dtype:
    """The dtype of the logits: autocast's inside autocast."""
    reduced = _autocast(embedding.device)
    return embedding.dtype if reduced is None else reduced


def _autocast(device: torch.device) -> torch.dtype | None:
    """Autocast's dtype on a device where it is switched on."""
    known = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if known else None


def _tensors(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, state)
