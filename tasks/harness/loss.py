"""Cross entropy of a batch and its gradients, in as little memory as a large vocabulary or a large batch asks for.

Three ways, each with the numbers of the plain one to rounding:

- a batch is differentiated in *micro-batches* of its rows. With s_i the sum of the cross entropy over the asked targets
  of micro-batch i and c the number of asked targets in the whole batch, gradients of s_i / c are added up;
- the logits of a large vocabulary are taken in *chunks* of tokens, each computed again when its turn comes in the
  backward pass (Chen et al. 2016, arXiv 1604.06174), so that one chunk of them is held at a time;
- blocks keep their inputs alone and are computed again in the backward pass (*activation checkpointing*, the same).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tasks.task import IGNORE, Batch

LOGITS_AT_ONCE = 2**24  # numbers; above it logits are taken in chunks (64 MiB in float32)

# Adds the gradients of one step to the parameters and returns the mean cross entropy over its asked targets.
Gradients = Callable[[Batch], Tensor]


def gradients(model: nn.Module, device: str, micro_batch_tokens: int, batch: Batch) -> Tensor:
    """The `Gradients` of one process alone; `micro_batch_tokens` 0 takes the whole batch at once."""
    parts = micro_batches(batch, micro_batch_tokens)
    if len(parts) == 1:
        loss = cross_entropy(model, *on_device(batch, device), "mean")
        loss.backward()
        return loss.detach()
    asked, total = asked_count(batch), torch.zeros((), dtype=torch.double, device=device)
    for part in parts:
        loss = cross_entropy(model, *on_device(part, device), "sum") / asked
        loss.backward()
        total += loss.detach()
    return total


def micro_batches(batch: Batch, tokens: int) -> list[Batch]:
    """A batch cut into parts of as many whole rows as `tokens` hold, at least one; the batch itself for 0."""
    return in_parts(batch, turns(batch, tokens, processes=1))


def in_parts(batch: Batch, parts: int) -> list[Batch]:
    """A batch cut into so many parts of equal numbers of rows, to one; the batch itself for 1."""
    if parts == 1:
        return [batch]
    cuts = zip(batch.tokens.tensor_split(parts), batch.targets.tensor_split(parts), strict=True)
    return [Batch(*one, batch.where) for one in cuts]


def turns(batch: Batch, tokens: int, processes: int) -> int:
    """In how many micro-batches each of several processes takes its rows: as many as the others, who would wait for ever."""
    rows, time = batch.tokens.shape
    fewest, most = rows // processes, -(-rows // processes)
    at_once = max(1, tokens // time) if tokens else most
    return min(fewest, -(-most // at_once))


def on_device(batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """Tokens and targets on a device; from pinned memory without waiting for it."""
    return tuple(part.to(device, non_blocking=part.is_pinned()) for part in (batch.tokens, batch.targets))


def asked_count(batch: Batch) -> int:
    """How many targets a batch asks for."""
    return int((batch.targets != IGNORE).sum())


def cross_entropy(model: nn.Module, tokens: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """The "sum" or "mean" of the cross entropy over asked targets, in nats; tokens and targets [b, t].

    A model that says `has_head` gives `hidden` [b, t, width] and the logits of any of these by `head`: where there are many
    logits, they are taken in chunks.
    """
    vocab = getattr(getattr(model, "size", None), "vocab", 0)
    if not getattr(model, "has_head", False) or tokens.numel() * vocab <= LOGITS_AT_ONCE:
        # The state, which holds every layer's keys and values, is gone before the logits are taken apart.
        logits = model(tokens)[0]
        asked = targets != IGNORE
        return F.cross_entropy(_wide(logits[asked]), targets[asked], reduction=reduction)
    hidden = model.hidden(tokens, None)[0]
    asked = targets != IGNORE
    total = _in_chunks(model.head, hidden[asked], targets[asked], max(1, LOGITS_AT_ONCE // vocab))
    return total / max(1, int(asked.sum())) if reduction == "mean" else total


def _in_chunks(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, size: int) -> Tensor:
    """The sum of the cross entropy over hidden vectors [n, width], `size` of them at a time."""
    total = _wide(hidden.new_zeros(()))
    for part, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        total = total + checkpoint(partial(_summed, head), part, wanted, use_reentrant=False)
    return total


def _summed(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(_wide(head(hidden)), targets, reduction="sum")


def _wide(x: Tensor) -> Tensor:
    """In float32, or in what is wider already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def checkpointed(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Inside, each of the model's `blocks` keeps its inputs alone and is computed again in the backward pass, if `wanted`.

    Raises ValueError for a model without blocks.
    """
    blocks = list(getattr(model, "blocks", ())) if wanted else []
    if wanted and not blocks:
        raise ValueError(
            f"activation_checkpointing needs a model that lists its layers in `blocks`, and {type(model).__name__} "
            "does not; give it that attribute, or take the key out of [budget]."
        )
    for block in blocks:
        block.forward = partial(_again, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            with suppress(AttributeError):  # the class's own forward shows again
                del block.forward


def _again(forward: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)
