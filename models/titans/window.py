"""Titans' sliding-window attention with an always visible prefix of persistent tokens (figure 3b, eqs. 27 and 31)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention import window_after, window_attention
from models.layers import maps, rotary, split_heads
from models.ops.flops import Flops, window_flops
from models.ops.softmax_attention.native import attend
from models.titans.memory_layer import convolution_of

WindowState = tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]


class PrefixedWindow(nn.Module):
    """Attention over a text's persistent tokens and the last `window` tokens, x [b, t, width] -> [b, t, inner].

    The first call (no state) must begin with the `prefix` persistent tokens, for which nothing is returned. Tokens see each other
    through rotary positions; persistent tokens have no place, so they look alike at any distance. State: the convolution's
    last inputs, the window's keys and values, those of the prefix, and the next token's place.
    """

    def __init__(self, width: int, heads: int, inner: int, window: int, prefix: int, convolution: bool = True):
        super().__init__()
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}.")
        if inner % (2 * heads):
            raise ValueError(f"Rotary positions need an even width per head: make {inner} a multiple of {2 * heads}.")
        self.heads, self.window, self.prefix = heads, window, prefix
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.conv = convolution_of(3 * inner, convolution)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)

    def forward(self, x: Tensor, state: WindowState | None = None) -> tuple[Tensor, WindowState]:
        tail, past, prefix, place = (None, None, None, 0) if state is None else state
        (qkv,) = maps(x, self.qkv)
        qkv, tail = self.conv(qkv, tail)
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        if prefix is None:
            prefix = k[:, : self.prefix].clone(), v[:, : self.prefix].clone()
            q, k, v = (part[:, self.prefix :] for part in (q, k, v))
        elif (found := self._step(q, k, v, past, prefix, place)) is not None:
            y, past = found
            return y.flatten(2), (tail, past, prefix, place + 1)
        turned, k = rotary(q, place), rotary(k, place)
        y, past = window_attention(turned, k, v, self.window, past, prefix, prefix_query=q)
        return y.flatten(2), (tail, past, prefix, place + q.shape[1])

    def _step(
        self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor], prefix: tuple[Tensor, Tensor], place: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
        """Attention of one token, compiled, and the window's new keys and values; None where that is not covered.

        Persistent tokens are asked by a query without a place: no doubled channels are needed.
        """
        if q.shape[1] > 1 or torch.is_grad_enabled():
            return None
        turned, k = rotary(q, place), rotary(k, place)
        past = tuple(old.to(k.dtype) for old in past)
        y = attend([(q, *prefix), (turned, *past), (turned, k, v)])
        return None if y is None else (y, window_after(past, (k, v), self.window))

    def flops(self, time: int) -> Flops:
        """Of attention, on twice the channels, as in PyTorch; compiled it has them once."""
        return window_flops(time, self.window, 2 * self.qkv.out_features // 3, self.prefix)
