"""The reference Transformer: rotary positions, causal full attention, in the shell's pre-norm SwiGLU block.

Vaswani et al. 2017 (arXiv 1706.03762) in the form of Llama (Touvron et al. 2023, arXiv 2302.13971):

    y = W_o softmax( R(q) R(k)^T / sqrt(d) ) v        R turns a pair of channels by its place in the text

`window` in `transformer-window` limits the view to that many tokens. `provider` says who computes, all of them one function:
FlashAttention is `provider="flash"`, FlexAttention `"flex"`, on a CPU in evaluation only (`models.ops.softmax_attention`, with
how fast each is).

Deviations: the embedding is tied to the output (Llama's is not); weights are drawn normal with width^-1/2 for q, k, v, half of
that for the output, 0.02 for embedding and SwiGLU, the latter's output divided by sqrt(2 depth) (Llama's paper says nothing,
transformers' code draws all with 0.02).

Beyond its training length attention meets angles that it has never seen. `rotary_scaling` is the usual remedy, without further
training: the model trains as ever, and in evaluation turns its pairs more slowly by a fixed factor s = `rotary_factor`, the
longest text asked over the training length.

    linear    frequency_i / s                                        Chen et al. 2023, arXiv 2306.15595
    ntk       (10000 s^(d / (d - 2)))^(-2 i / d)                     the NTK-aware form; Peng et al. 2023, arXiv 2309.00071

The factor does not follow the text's length: then a text in pieces would not give what the whole gives. So it acts on short
texts too, where it may cost something. Training draws the same weights under every scaling.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.attention import Cache, causal_attention, window_attention
from models.law import Law
from models.layers import rotary, split_heads
from models.ops.flops import Flops, attention_flops, window_flops
from models.ops.softmax_attention import softmax_attention, windowed_attention
from models.registry import register


class Attention(nn.Module):
    """Projections and rotary positions around an attention of some view."""

    providers = tuple(softmax_attention.forms)
    # They act in evaluation alone: one trained model is examined with every extension.
    exam_settings = ("rotary_scaling", "rotary_factor")

    def __init__(
        self,
        width: int,
        heads: int,
        rotary_scaling: Literal["none", "linear", "ntk"] = "none",
        rotary_factor: float = 1.0,
        provider: str = "auto",
    ):
        super().__init__()
        if rotary_scaling not in ("none", "linear", "ntk"):
            raise ValueError(f"Unknown rotary_scaling '{rotary_scaling}'; choose none, linear or ntk.")
        if rotary_factor < 1 or (rotary_scaling == "none" and rotary_factor != 1):
            raise ValueError(
                f"rotary_factor must be at least 1, and 1 without rotary_scaling (linear or ntk), not {rotary_factor}."
            )
        self.heads, self.scaling, self.factor, self.provider = heads, rotary_scaling, rotary_factor, provider
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)

    def project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [b, t, h, d] of tokens that begin at place `start`."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        frequency = None if self.training else self._frequency(q.shape[-1], q.device)
        return rotary(q, start, frequency), rotary(k, start, frequency), v

    def _frequency(self, head: int, device: torch.device) -> Tensor | None:
        """The scaled frequencies [head / 2] of evaluation; None where nothing is scaled."""
        if self.scaling == "none" or self.factor == 1:
            return None
        exponent = -torch.arange(0, head, 2, device=device, dtype=torch.float64) / head
        if self.scaling == "linear":
            return 10000.0**exponent / self.factor
        # The last pair, the slowest, then turns as in the linear form, and the first as if nothing were scaled.
        return (10000.0 * self.factor ** (head / max(1, head - 2))) ** exponent


@register(
    "transformer",
    paper="Vaswani et al. 2017, arXiv 1706.03762; Touvron et al. 2023, arXiv 2302.13971",
    equation="y = softmax(q K^T / sqrt(d)) V over all tokens so far",
)
class Transformer(Attention):
    """Causal attention over everything: state is the cache of all keys and values, which grows with the context."""

    law = Law(
        forget="-",
        compare="-",
        write="k, v, appended",
        read="softmax(q K^T / sqrt(d)) V",
    )
    period = 1
    fixed_state = False

    def __init__(
        self,
        width: int,
        heads: int,
        rotary_scaling: Literal["none", "linear", "ntk"] = "none",
        rotary_factor: float = 1.0,
        provider: str = "auto",
    ):
        super().__init__(width, heads, rotary_scaling, rotary_factor, provider)

    def forward(self, x: Tensor, state: Cache | None = None) -> tuple[Tensor, Cache]:
        q, k, v = self.project(x, 0 if state is None else state[2])
        y, state = causal_attention(q, k, v, state, self.provider)
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

    law = Law(
        forget="what is older than `window`",
        compare="-",
        write="k, v, appended",
        read="softmax(q K^T / sqrt(d)) V",
    )
    fixed_state = True
    state_setting = "window"
    providers = tuple(windowed_attention.forms)

    def __init__(self, width: int, heads: int, window: int = 64, provider: str = "auto"):
        super().__init__(width, heads, provider=provider)
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}.")
        self.window = self.period = window

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor, int] | None = None) -> tuple[Tensor, tuple]:
        start = 0 if state is None else state[2]
        q, k, v = self.project(x, start)
        y, past = window_attention(q, k, v, self.window, None if state is None else state[:2], provider=self.provider)
        return self.out(y.flatten(2)), (*past, start + x.shape[1])

    def flops(self, time: int) -> Flops:
        """Of attention in blocks."""
        return window_flops(time, self.window, self.out.in_features)
