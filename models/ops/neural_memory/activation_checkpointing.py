"""Long training: states stored every so many tokens, and all between them computed again for the gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.checkpoint import checkpoint

from models.ops.neural_memory.recurrence import State
from models.ops.providers import is_probing


def stored_every(tokens: int, form: Callable) -> Callable:
    """A form of `recurrence.recurrence` that keeps for its gradient one state per `tokens` tokens, and the text.

    Exact, as any split of a text is; it computes forward twice. A multiple of the chunk keeps no open chunk with the states.
    """

    def remembered(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        momentum: Tensor,
        rate: Tensor,
        keep: Tensor,
        state: State | None = None,
        **fixed: Any,
    ) -> tuple[Tensor, State]:
        if q.shape[1] <= tokens or not torch.is_grad_enabled():
            return form(q, k, v, momentum=momentum, rate=rate, keep=keep, state=state, **fixed)

        def piece(state: State | None, *text: Tensor) -> tuple[Tensor, State]:
            gates = dict(zip(("momentum", "rate", "keep"), text[3:], strict=True))
            return form(*text[:3], **gates, state=state, **fixed)

        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        if is_probing():
            again = partial(_forward_alone, chunk=fixed["rule"].chunk)
        ys = []
        for text in zip(*(x.split(tokens, 1) for x in (q, k, v, momentum, rate, keep)), strict=True):
            y, state = again(piece, state, *text)
            ys.append(y)
        return torch.cat(ys, 1), state

    return remembered


def _forward_alone(piece: Callable, state: State | None, *text: Tensor, chunk: int) -> tuple[Tensor, State]:
    """What `checkpoint` gives and keeps in a forward pass, in shape alone; the gradient is left out.

    `checkpoint` imports torch's compiler, for seconds. Only the text's last chunk is read: the state behind it is as large.
    """
    time = text[0].shape[1]
    read = (time - 1) % chunk + 1
    with torch.no_grad():
        y, behind = piece(state, *(x[:, -read:] for x in text))
        y = y.new_zeros(y.shape[0], time, *y.shape[2:])
    learning = tree_map_only(Tensor, lambda x: x.requires_grad_() if x.is_floating_point() else x, behind)
    return _Keeping.apply(y, *text, *filter(torch.is_tensor, tree_leaves(state))), learning


class _Keeping(torch.autograd.Function):
    """`apply(y, *kept)` is y, and keeps the others for a gradient that is never asked for."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, *kept: Tensor) -> Tensor:
        ctx.save_for_backward(*kept)
        return y.view_as(y)
