"""R-Transformer: in each level a small RNN over every token's last few inputs, then attention over everything, then a SwiGLU.

Z. Wang, Y. Ma, Z. Liu, J. Tang 2019, arXiv 1907.05572, whose code is DSE-MSU/R-transformer. A level, each part behind a norm and
added to the stream:

    local RNN    y_t = h_k of  h_0 = 0,  h_i = GRU(x_{t-k+i}, h_{i-1}),  i = 1 .. k         zeros stand before the text
    attention    y = softmax(q K^T / sqrt(d)) V over all tokens so far                        no positions: the RNN tells order
    feed         SwiGLU

The GRU is torch's: r, u = sigmoid(W x + b + R h + c), n = tanh(W_n x + b_n + r (R_n h + c_n)), h <- (1 - u) n + u h, drawn
uniform in +-D^-1/2 as torch draws it. Zeros before the text pass through it too, so its biases act.

`window` limits the attention to so many tokens, for streams; the paper's spans everything. Deviations: RMSNorm (theirs divides by
the unbiased deviation), the shell's SwiGLU for their feed-forward, no dropout, weights of attention as the reference's.

Speed: a token passes the cell k times. Inputs are projected once, and the k steps taken by all tokens at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.attention import Cache, causal_attention, window_attention
from models.law import Law
from models.layers import linear_flops, split_heads
from models.ops.flops import Flops, attention_flops, window_flops
from models.registry import register
from models.shell.model import Block, LanguageModel, Size


class LocalGRU(nn.Module):
    """A GRU that begins anew for each token, some inputs back: x [b, t, D] -> y [b, t, D]; state: the last k - 1 inputs."""

    def __init__(self, width: int, inputs: int):
        super().__init__()
        self.inputs = self.period = inputs
        self.project, self.recurrent = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        before = x.new_zeros(x.shape[0], self.inputs - 1, x.shape[2]) if state is None else state.to(x.dtype)
        seen = torch.cat([before, x], 1)
        given, h = self.project(seen), torch.zeros_like(x)
        for step in range(self.inputs):
            # At h = 0 the bias alone, where a later step gives the matrix its gradient.
            recurrent = self.recurrent(h) if step or self.inputs == 1 else self.recurrent.bias.to(given.dtype)
            h = gru(given[:, step : step + x.shape[1]], recurrent, h)
        return h, seen[:, x.shape[1] :].clone()

    def flops(self, time: int) -> Flops:
        """Of the steps but the first two, one of which is counted without being told, and of the inputs before the text."""
        return linear_flops(self.recurrent, max(0, self.inputs - 2) * time).plus(
            linear_flops(self.project, self.inputs - 1)
        )


def gru(given: Tensor, recurrent: Tensor, h: Tensor) -> Tensor:
    """torch's GRU cell from W x + b and R h + c, [..., 3 D] each."""
    (x_r, x_u, x_n), (h_r, h_u, h_n) = given.chunk(3, -1), recurrent.chunk(3, -1)
    r, u = (x_r + h_r).sigmoid(), (x_u + h_u).sigmoid()
    n = (x_n + r * h_n).tanh()
    return n + u * (h - n)


class PlainAttention(nn.Module):
    """Causal attention without positions, over everything or over the last `window` tokens."""

    def __init__(self, width: int, heads: int, window: int | None):
        super().__init__()
        self.heads, self.window, self.period = heads, window, window or 1
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)

    def forward(self, x: Tensor, state: Cache | tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple]:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        if self.window is None:
            y, state = causal_attention(q, k, v, state)
        else:
            y, state = window_attention(q, k, v, self.window, state)
        return self.out(y.flatten(2)), state

    def flops(self, time: int) -> Flops:
        """Of attention, over hidden pairs too."""
        width = self.out.in_features
        return attention_flops(time, time, width) if self.window is None else window_flops(time, self.window, width)


@register(
    "r-transformer",
    paper="Wang et al. 2019, arXiv 1907.05572",
    equation="h_t = GRU over the last k inputs from 0;  y = softmax(q K^T / sqrt(d)) V over all tokens so far, no positions",
)
class RTransformer(LanguageModel):
    """A whole language model of `depth` levels. State: of each level the last inputs of the RNN, and keys and values."""

    fixed_state = False
    law = Law(
        forget="each RNN, after k inputs", compare="-", write="GRU of the last k inputs; k, v, appended",
        read="softmax(q K^T / sqrt(d)) V",
    )  # fmt: skip

    def __init__(self, size: Size, feed: int, inputs: int = 7, window: int | None = None):
        """`inputs` is k, the tokens that each RNN reads; `window` None attends to everything."""
        if inputs < 1 or not (window is None or window >= 1):
            raise ValueError(f"r-transformer needs inputs >= 1 and window >= 1 (or None), not {inputs} and {window}.")
        blocks = []
        for _ in range(size.depth):
            blocks.append(Block(size.width, LocalGRU(size.width, inputs), 0))
            blocks.append(Block(size.width, PlainAttention(size.width, size.heads, window), feed))
        super().__init__(size, blocks)
        self.fixed_state = window is not None

    @classmethod
    def declares(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A window makes the state one of a fixed size."""
        return {"fixed_state": settings.get("window") is not None}
