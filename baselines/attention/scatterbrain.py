"""Scatterbrain: softmax attention, exact where it is near, estimated by random features elsewhere, under one denominator.

Chen et al. 2021, arXiv 2110.15343, with the local support of the authors' released configuration (HazyResearch/scatterbrain):

    w_ts = exp(q_t . k_s / sqrt(d))     for the last `window` tokens s <= t
           phi(q_t) . phi(k_s)          for the tokens before them
    y_t  = W_o sum_s w_ts v_s / sum_s w_ts,   phi(x) = exp([U; -U] x' - |x'|^2 / 2) / sqrt(m),  x' = x d^(-1/4)

q and k are turned by their places. The rows of U are Performer's, m / 2 of them, drawn once and never learned. Nothing is
subtracted: a token's key goes into the sums when it leaves the window. A window as long as the text is softmax attention;
`window=0` is Performer with these features. Maps begin as the reference Transformer's.

Deviations: the window is 32 tokens and m is the even number below d ln d, for texts of hundreds of tokens. The paper's other
support, hashing with balanced buckets, looks at the whole text, and is left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.law import Law
from models.layers import at_least_float32, rotary, split_heads
from models.ops.flops import Flops
from models.ops.kernel_attention import kernel_attention, window_and_kernel
from models.ops.kernel_attention.features import orthogonal_rows, softmax_features
from models.ops.kernel_attention.flops import kernel_attention_flops, random_feature_flops, window_and_kernel_flops
from models.registry import register


@register(
    "scatterbrain",
    paper="Chen et al. 2021, arXiv 2110.15343",
    equation="y = sum w_ts v_s / sum w_ts,  w = exp(q . k / sqrt(d)) in the window, phi(q) . phi(k) before it",
)
class Scatterbrain(nn.Module):
    """The Scatterbrain layer. State: sums of what has left the window, the window's keys and values, the next place."""

    fixed_state = True
    state_setting = "window"
    law = Law(
        forget="-",
        compare="-",
        write="phi(k) [v | 1]^T as it leaves the window",
        read="(S^T phi(q) + exact window) / weights",
    )
    reading = "The support is the last tokens, since the published code's causal local attention stops in an assertion."

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        window: int = 32,
        random_features: int | None = None,
        provider: str = "auto",
    ):
        """`inner` is the width over all heads, the model's by default; `random_features` is m, None for about d ln d."""
        super().__init__()
        inner = width if inner is None else inner
        if inner % (2 * heads):
            raise ValueError(f"Scatterbrain turns pairs of each head: make inner ({inner}) a multiple of {2 * heads}.")
        head = inner // heads
        if random_features is None:
            random_features = max(1, int(head * math.log(head)) // 2) * 2
        if window < 0 or random_features < 2 or random_features % 2:
            raise ValueError(
                f"Scatterbrain needs window >= 0 and an even number of random_features, not {window} and {random_features}."
            )
        self.heads, self.window, self.provider = heads, window, provider
        self.period = max(64, window)  # of the sums, the longest chunk
        self.qkv, self.out = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width, bias=False)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)
        self.register_buffer("projection", orthogonal_rows(random_features // 2, head))

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        past, start = (None, 0) if state is None else state
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = (rotary(at_least_float32(part), start) for part in (q, k))
        rows = torch.cat([self.projection, -self.projection])
        if self.window:
            y, past = window_and_kernel(
                q, k, v, projection=rows, window=self.window, state=past, provider=self.provider
            )
        else:
            q, k = softmax_features(q, rows), softmax_features(k, rows)
            y, past = kernel_attention(q, k, v, kernel="exponential", state=past, provider=self.provider)
        return self.out(y.flatten(2)), (past, start + x.shape[1])

    def flops(self, time: int) -> Flops:
        """Of the window, the features and the sums."""
        half, head = self.projection.shape
        if self.window:
            return window_and_kernel_flops(time, self.heads, head, head, 2 * half, self.window)
        made = random_feature_flops(2 * time * self.heads, head, 2 * half)
        return made.plus(kernel_attention_flops(time, self.heads, 2 * half, head, "product"))
