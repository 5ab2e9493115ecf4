"""Softmax attention by the package flash-attn, in half precision on CUDA."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from models.ops.providers import NotCovered, require
from models.ops.softmax_attention.two_queries import two_queries

PACKAGE = "flash-attn"


@two_queries
def flash_attn(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, prefix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """`recurrence.recurrence` by `flash_attn_func`; same shapes. Raises NotCovered for a prefix, and off half precision."""
    require(PACKAGE, q)
    if prefix is not None or q.dtype not in (torch.float16, torch.bfloat16):
        raise NotCovered(
            f"Provider '{PACKAGE}' has no form for {'a prefix' if prefix is not None else q.dtype}; "
            "use autocast to bfloat16 without a prefix, or provider='sdpa'."
        )
    # Its causal mask stands at the lower right, as a text that goes on needs it; a window counts the tokens before one's own.
    behind = -1 if window is None else window - 1
    return import_module("flash_attn").flash_attn_func(q, k, v, causal=True, window_size=(behind, 0 if window else -1))
