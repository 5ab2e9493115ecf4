"""Local multi-query attention: a window of keys and values that all heads share, as Griffin has it between its recurrences.

De et al. 2024, arXiv 2402.19427, Section 2.3 (multi-query: Shazeer 2019, arXiv 1911.02150; local: Beltagy et al. 2020, arXiv
2004.05150), as the authors' code (google-deepmind/recurrentgemma):

    y_h = softmax( R(q_h) R(k)^T / sqrt(d) ) v  over the last `window` tokens,   out = W_o [y_1 .. y_H] + b

q_h for each head, one k and one v of d = width / heads numbers for all. R turns the first half of a head's numbers only, the pair
(j, j + d / 4) by place * 10000^(-4 j / d). No bias but the output's. Weights are drawn N(0, 1 / fan in), the output's
N(0, 2 / (layers fan in)), its bias 0.

Deviation: `window` counts the tokens that are seen, the token's own with them, and is 64; the code's window of 1024 sees 1025.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention import window_attention
from models.law import Law
from models.layers import rotary, split_heads
from models.ops.flops import Flops, window_flops
from models.ops.softmax_attention import windowed_attention
from models.registry import register


@register(
    "local-attention",
    paper="De et al. 2024, arXiv 2402.19427; Shazeer 2019, arXiv 1911.02150",
    equation="y_h = softmax(q_h K^T / sqrt(d)) V over the last `window` tokens, one K and V for all heads",
)
class LocalAttention(nn.Module):
    """Multi-query attention in a window. State: the last `window - 1` keys and values [b, n, 1, d], and the next place."""

    law = Law(
        forget="what is older than `window`",
        compare="-",
        write="one k, v for all heads, appended",
        read="softmax(q_h K^T / sqrt(d)) V",
    )
    fixed_state = True
    state_setting = "window"
    providers = tuple(windowed_attention.forms)

    def __init__(self, width: int, heads: int, window: int = 64, depth: int = 1, provider: str = "auto"):
        """The model's depth scales the output's first weights."""
        super().__init__()
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}.")
        if width % (4 * heads):
            raise ValueError(f"Half of each head is turned in pairs: make the width {width} a multiple of {4 * heads}.")
        self.heads, self.head, self.window, self.period = heads, width // heads, window, window
        self.provider = provider
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * self.head, bias=False)
        self.out = nn.Linear(width, width)
        for layer in (self.query, self.key_value):
            nn.init.normal_(layer.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=(2 / (depth * width)) ** 0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor, int] | None = None) -> tuple[Tensor, tuple]:
        past, start = (None, 0) if state is None else (state[:2], state[2])
        q = self._turned(split_heads(self.query(x), self.heads), start)
        k, v = (part[:, :, None] for part in self.key_value(x).chunk(2, dim=-1))
        k = self._turned(k, start)
        past = past and tuple(map(self._each, past))
        y, seen = window_attention(q, self._each(k), self._each(v), self.window, past, provider=self.provider)
        one = tuple(part[:, :, :1].clone() for part in seen)  # the heads' copies of it are not kept
        return self.out(y.flatten(2)), (*one, start + x.shape[1])

    def _turned(self, x: Tensor, start: int) -> Tensor:
        half = self.head // 2
        return torch.cat([rotary(x[..., :half], start), x[..., half:]], -1)

    def _each(self, x: Tensor) -> Tensor:
        """The one head as every head sees it."""
        return x.expand(-1, -1, self.heads, -1)

    def flops(self, time: int) -> Flops:
        """Of attention in blocks."""
        return window_flops(time, self.window, self.out.in_features)
