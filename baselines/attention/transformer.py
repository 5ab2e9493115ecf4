"""The reference Transformer: rotary positions, causal full attention, in the shell's pre-norm SwiGLU block.

Vaswani et al. 2017 (arXiv 1706.03762) in the form of Llama (Touvron et al. 2023, arXiv 2302.13971):

    y = W_o softmax( R(q) R(k)^T / sqrt(d) ) v        R turns a pair of channels by its place in the text

Deviation: none. `window` in `transformer-window` limits the view to that many tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.attention import Cache, causal_attention, window_attention
from models.flops import Flops, attention_flops, window_flops
from models.layers import rotary, split_heads
from models.registry import register


class Attention(nn.Module):
    """Projections and rotary positions around an attention of some view."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)

    def project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [b, t, h, d] of tokens that begin at place `start`."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return rotary(q, start), rotary(k, start), v


@register(
    "transformer",
    paper="Vaswani et al. 2017, arXiv 1706.03762; Touvron et al. 2023, arXiv 2302.13971",
    equation="y = softmax(q K^T / sqrt(d)) V over all tokens so far",
)
class Transformer(Attention):
    """Causal attention over everything: state is the cache of all keys and values, which grows with the context."""

    period = 1
    fixed_state = False

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)

    def forward(self, x: Tensor, state: Cache | None = None) -> tuple[Tensor, Cache]:
        q, k, v = self.project(x, 0 if state is None else state[2])
        y, state = causal_attention(q, k, v, state)
        return self.out(y.flatten(2)), state

    def flops(self, time: int) -> Flops:
        """Of attention, over hidden pairs too."""
        return attention_flops(time, time, self.out.in_features)


@register(
    "transformer-window",
    paper="Beltagy et al. 2020, arXiv 2004.05150; Jiang et al. 2023, arXiv 2310.06825",
    equation="y = softmax(q K^T / sqrt(d)) V over the last `window` tokens",
)
class WindowTransformer(Attention):
    """Sliding-window attention: state is the last `window - 1` keys and values."""

    fixed_state = True

    def __init__(self, width: int, heads: int, window: int = 64):
        super().__init__(width, heads)
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}.")
        self.window = self.period = window

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor, int] | None = None) -> tuple[Tensor, tuple]:
        start = 0 if state is None else state[2]
        q, k, v = self.project(x, start)
        y, past = window_attention(q, k, v, self.window, None if state is None else state[:2])
        return self.out(y.flatten(2)), (*past, start + x.shape[1])

    def flops(self, time: int) -> Flops:
        """Of attention in blocks."""
        return window_flops(time, self.window, self.out.in_features)
