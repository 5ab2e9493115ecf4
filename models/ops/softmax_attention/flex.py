"""Softmax attention by torch's FlexAttention: whole blocks of a mask are left out, the mask itself is a function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from models.ops.providers import NotCovered
from models.ops.softmax_attention.two_queries import two_queries


@two_queries
def flex(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, prefix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """`recurrence.recurrence` by FlexAttention, compiled on CUDA; same shapes. Raises NotCovered for a gradient on a CPU."""
    given = q, k, v, *(prefix or ())
    if q.device.type == "cpu" and torch.is_grad_enabled() and any(x.requires_grad for x in given):
        raise NotCovered(
            "Provider 'flex' has no gradient on a CPU; use it in evaluation, or train with provider='sdpa' or 'auto'."
        )
    q, k, v = (x.detach() if q.device.type == "cpu" else x for x in (q, k, v))
    always = 0 if prefix is None else prefix[0].shape[1]
    if prefix is not None:
        k, v = (
            torch.cat([x.to(y.dtype).expand(len(y), -1, -1, -1), y], 1) for x, y in zip(prefix, (k, v), strict=True)
        )
    if not q.numel():
        return v.new_empty(*q.shape[:3], v.shape[-1])
    mask = None
    if q.shape[1] > 1 or window is not None:
        mask = _mask(q.shape[1], k.shape[1], window or k.shape[1], always, q.device)
    return _form(q.device.type)(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask).transpose(1, 2)


@lru_cache(maxsize=64)
def _mask(rows: int, columns: int, window: int, always: int, device: torch.device) -> BlockMask:
    """Which of the columns, `always` of them seen by all, the last `rows` tokens see; one for each pair of lengths."""
    before = columns - always - rows

    def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        distance = row + before - (column - always)
        return (column < always) | ((distance >= 0) & (distance < window))

    return create_block_mask(sees, None, None, rows, columns, device=device)


@cache
def _form(device: str) -> Callable:
    """The function for a kind of device: on a CPU as it is, since compiling a shape takes a minute there."""
    if device != "cpu":
        return torch.compile(flex_attention, dynamic=True)

    def plain(*given: Tensor, block_mask: BlockMask | None) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
            return flex_attention(*given, block_mask=block_mask)

    return plain
