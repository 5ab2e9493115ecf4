"""Fast weight programmers: linear attention as a matrix that the text programs, by the delta rule over DPFP features.

Schlag, Irie, Schmidhuber 2021, arXiv 2102.11174, with the defaults of the authors' code (IDSIA/lmtool-fwp):

    q, k, v, b = W x for each head,   b <- sigmoid(b),   q, k <- phi(q) / sum(phi(q)), phi(k) / sum(phi(k))
    W <- W + b (v - W k) k^T,   y = W q / sqrt(d)                                            read after the write
    phi(x) = [ r * roll(r, 1) | .. | r * roll(r, nu) ],   r = [ relu(x) | relu(-x) ]         DPFP, 2 d nu features

x [b, t, D]; q, k, v [b, t, h, d]; W [b, h, 2 d nu, d]. Keys that sum to 1 are at most 1 long and b < 1, so that a write never
overshoots and W stays bounded at any length. `features="elu"` has phi(x) = elu(x) + 1, d features. `update="sum"` is the paper's
rule without a comparison, normalised as attention is, its features undivided:

    W <- W + v phi(k)^T,   z <- z + phi(k),   y = (W phi(q) / sqrt(d)) / (z . phi(q) / sqrt(d) + 1e-5)

All weights are N(0, 0.02^2), as the authors' trainer draws them.

Deviations: no positions (theirs adds sinusoids to the embedding) and no dropout, in the benchmark's pre-norm block; the sum of
phi is held above 1e-6, which an input with a single number other than zero would else divide by 0; the delta rule with
attention's normalisation, which the paper tries and leaves, is left out.

Speed: a training step of the layer on one thread of a CPU (width 128, four heads, nu 2) takes 1.3 times that of full
attention at 512 tokens and 0.7 times at 2,048, compiled; in chunks of plain PyTorch 1.7 and 0.9 times.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import at_least_float32, split_heads
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register

LEAST = 1e-6  # of a sum of features
EPSILON = 1e-5  # beside the sum rule's normaliser
SPREAD = 0.02  # of weights at first


def dpfp(x: Tensor, nu: int) -> Tensor:
    """The deterministic parameter-free projection of x [.., d]: 2 d nu products of its signed halves, none below zero."""
    r = torch.cat([F.relu(x), F.relu(-x)], -1)
    return torch.cat([r * r.roll(shift, -1) for shift in range(1, nu + 1)], -1)


@register(
    "fast-weights",
    paper="Schlag, Irie and Schmidhuber 2021, arXiv 2102.11174",
    equation="W <- W + b (v - W k) k^T;  y = W q / sqrt(d),  q and k by DPFP, each of sum 1",
)
class FastWeights(nn.Module):
    """The fast weight layer. State: the matrix [b, h, features, d], and under `update="sum"` the sum of keys [b, h, features]."""

    period = 64  # the chunk of the chunked form
    fixed_state = True
    law = Law(forget="-", compare="W k", write="b (v - W k) k^T, k = DPFP / sum", read="W q / sqrt(d)")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        update: Literal["delta", "sum"] = "delta",
        features: Literal["dpfp", "elu"] = "dpfp",
        nu: int = 2,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        super().__init__()
        inner = width if inner is None else inner
        if update not in ("delta", "sum") or features not in ("dpfp", "elu"):
            raise ValueError(
                f"Fast weights know update delta or sum and features dpfp or elu, not {update}, {features}."
            )
        if not 1 <= nu < 2 * (inner // heads) or inner % heads:
            raise ValueError(
                f"Fast weights need inner ({inner}) to be a multiple of heads ({heads}) and nu in [1, 2 inner / heads), not {nu}."
            )
        self.heads, self.update, self.features, self.nu, self.provider = heads, update, features, nu, provider
        self.widths = [inner, inner, inner, heads] if update == "delta" else [inner, inner, inner]
        self.project = nn.Linear(width, sum(self.widths), bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        for layer in (self.project, self.out):
            nn.init.normal_(layer.weight, std=SPREAD)

    def forward(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        matrix, *keys = (None,) if state is None else state
        q, k, v, *rate = self.project(x).split(self.widths, -1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        q, k = self._features(q) * q.shape[-1] ** -0.5, self._features(k)
        given = {"state": matrix, "provider": self.provider}
        if rate:
            rate = at_least_float32(rate[0]).sigmoid()
            y, matrix = scan(q.to(v.dtype), k.to(v.dtype), v, rate=rate, compare=True, **given)
            return self.out(y.flatten(2)), (matrix,)
        y, matrix = scan(q, k, v.to(q.dtype), **given)
        sums = k.cumsum(1) if not keys else k.cumsum(1) + keys[0].to(k.dtype)[:, None]
        y = y / ((q * sums).sum(-1, keepdim=True) + EPSILON)
        return self.out(y.to(x.dtype).flatten(2)), (matrix, sums[:, -1].clone())

    def _features(self, x: Tensor) -> Tensor:
        """phi [b, t, h, features] of q or k, in at least float32; divided by their sum where the delta rule compares."""
        x = at_least_float32(x)
        x = dpfp(x, self.nu) if self.features == "dpfp" else F.elu(x) + 1
        return x if self.update == "sum" else x / x.sum(-1, keepdim=True).clamp_min(LEAST)

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        head = self.out.in_features // self.heads
        features, compare = 2 * head * self.nu if self.features == "dpfp" else head, self.update == "delta"
        return scan_flops(time, self.heads, features, head, compare=compare)
