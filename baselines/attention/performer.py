"""Performer: softmax attention estimated by positive random features (FAVOR+).

Choromanski et al. 2021, arXiv 2009.14794, Lemma 1 and Section 2.4:

    phi_i(x) = exp(w_i . x' - |x'|^2 / 2) / sqrt(m),  x' = x d^(-1/4)
    y_t = sum_{s<=t} (phi(q_t) . phi(k_s)) v_s / sum_{s<=t} phi(q_t) . phi(k_s),   out = W_o y

The rows w_i are drawn once and never learned: blocks of d orthogonal directions, each as long as a Gaussian vector of d numbers
is; one set for all heads. m = int(d ln d) by default. `features="relu"` is the paper's generalised attention, phi(x) = relu(W x')
+ 1e-3. q and k are turned by their places, which keeps their norms, so that phi estimates the softmax of turned ones. q, k, v and
output maps without biases, Glorot uniform.

Deviations: the public codes stabilise exp by a maximum over the keys of the whole text and add an epsilon to every feature, so
that a later key changes earlier outputs; here the maximum runs and there is no epsilon: the paper's equation, and causal.
W is not drawn again during training (theirs: every 1000 calls): every call would then be another function. Its directions
are uniform; those of the codes come from a QR decomposition whose signs are not, which biases their estimate.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import at_least_float32, rotary, split_heads
from models.ops.flops import Flops
from models.ops.kernel_attention import kernel_attention
from models.ops.kernel_attention.features import orthogonal_rows, softmax_features
from models.ops.kernel_attention.flops import kernel_attention_flops, random_feature_flops
from models.registry import register

LEAST_FEATURE = 1e-3  # of generalised attention, as in both public codes


@register(
    "performer",
    paper="Choromanski et al. 2021, arXiv 2009.14794",
    equation="y_t = sum_{s<=t} (phi(q_t) . phi(k_s)) v_s / sum phi(q_t) . phi(k_s),  phi(x) = exp(W x - |x|^2 / 2) / sqrt(m)",
)
class Performer(nn.Module):
    """The FAVOR+ layer. State: the mean of phi(k) [v | 1] [b, h, m, d + 1] relative to e^M, M [b, h], and the tokens in it."""

    period = 64  # the longest chunk of the chunked form
    fixed_state = True
    state_setting = "random_features"
    law = Law(forget="-", compare="-", write="phi(k) [v | 1]^T", read="S^T phi(q) / (z . phi(q)), phi random")
    reading = "The exponential's stabiliser is a running maximum and no epsilon is added, since the published ones look ahead."

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        random_features: int | None = None,
        features: Literal["softmax", "relu"] = "softmax",
        provider: str = "auto",
    ):
        """`inner` is the width over all heads, the model's by default; `random_features` is m, None for int(d ln d)."""
        super().__init__()
        inner = width if inner is None else inner
        if inner % (2 * heads):
            raise ValueError(f"Performer turns pairs of each head: make inner ({inner}) a multiple of {2 * heads}.")
        if features not in ("softmax", "relu"):
            raise ValueError(f"Unknown features '{features}'; choose softmax or relu.")
        head = inner // heads
        count = max(1, int(head * math.log(head))) if random_features is None else random_features
        if count < 1:
            raise ValueError(f"Performer needs random_features of at least 1, not {count}.")
        self.heads, self.features, self.provider = heads, features, provider
        self.qkv, self.out = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width, bias=False)
        for weight in (*self.qkv.weight.detach().chunk(3), self.out.weight):
            nn.init.xavier_uniform_(weight)
        self.register_buffer("projection", orthogonal_rows(count, head))

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        start = 0 if state is None else state[-1]
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = (rotary(at_least_float32(part), start) for part in (q, k))
        if self.features == "softmax":
            q, k, kernel = softmax_features(q, self.projection), softmax_features(k, self.projection), "exponential"
        else:
            q, k, kernel = self._positive(q), self._positive(k), "product"
        y, state = kernel_attention(q, k, v, kernel=kernel, state=state, provider=self.provider)
        return self.out(y.flatten(2)), state

    def _positive(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.relu(x * x.shape[-1] ** -0.25 @ self.projection.to(x.dtype).T) + LEAST_FEATURE

    def flops(self, time: int) -> Flops:
        """Of the features and the sums."""
        count, head = self.projection.shape
        made = random_feature_flops(2 * time * self.heads, head, count)
        return made.plus(kernel_attention_flops(time, self.heads, count, head, "product"))
