"""Long training: states stored every so many tokens, and all between them computed again for the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.ops.neural_memory.recurrence import State


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

        ys = []
        for text in zip(*(x.split(tokens, 1) for x in (q, k, v, momentum, rate, keep)), strict=True):
            y, state = checkpoint(piece, state, *text, use_reentrant=False, preserve_rng_state=False)
            ys.append(y)
        return torch.cat(ys, 1), state

    return remembered
