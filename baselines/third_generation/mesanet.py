"""MesaNet: a linear memory that is read by solving, at every token, the regression over all that it was told.

von Oswald et al. 2025, arXiv 2506.05233, in the form of `MesaNet` of flash-linear-attention (0.6.0), with its defaults:

    H <- a H + b k k^T,   G <- a G + b k v^T,   y = G^T (H + diag(l))^-1 q,   out = W_o norm_h(y)
    q, k = l2(silu(conv(W x))),   v = W_v x,   a = sigmoid(W_a x + c),   b = sigmoid(W_b x + d)
    l = 1/4 + softplus(.) per key channel, one at first

Values pass no convolution, q has no scale, and there is no output gate. The systems are solved by at most `steps` steps of
conjugate gradients, whose products are scans (`models/ops/ridge_read/chunked.py`); the gradient is that of the exact solution.
Weights are drawn as `nn.Linear` draws them, by the library's whole models normal with 0.02. The ridge l does not decay, as in the
library.

Deviation: the library adds 1e-5 to the denominators of conjugate gradients and begins with q / (diag(H) + l) in decoding; here
a row begins with 0 and stops by itself once its residual is rounding, in decoding as in training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, at_least_float32, l2_norm, split_heads
from models.ops.flops import Flops
from models.ops.ridge_read import ridge_read
from models.ops.ridge_read.flops import ridge_read_flops
from models.registry import register

LEAST = 0.25  # of the ridge


@register(
    "mesanet",
    paper="von Oswald et al. 2025, arXiv 2506.05233",
    equation="H <- a H + b k k^T;  G <- a G + b k v^T;  y = G^T (H + diag(l))^-1 q",
)
class MesaNet(nn.Module):
    """The MesaNet layer. State: the convolution's last inputs, H [b, h, k, k] and G [b, h, k, v]."""

    law = Law(
        forget="a, per head, from x",
        compare="with all tokens, when read",
        write="b k v^T to G, b k k^T to H",
        read="G^T (H + diag(l))^-1 q",
    )
    period = 64  # the longest chunk of the scans
    fixed_state = True
    no_weight_decay = ("ridge",)
    family_exception = (
        "what is stored is only forgotten and added to, but every read solves for the regression over all of it"
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        steps: int = 30,
        provider: str = "auto",
    ):
        """`inner` is the width of q, k and v over all heads, the model's by default; `steps` are those of conjugate gradients."""
        super().__init__()
        inner = width if inner is None else inner
        if inner % heads or steps < 1:
            raise ValueError(f"MesaNet needs inner ({inner}) to be a multiple of heads ({heads}), and steps >= 1.")
        self.heads, self.steps, self.provider = heads, steps, provider
        self.qk, self.value = nn.Linear(width, 2 * inner, bias=False), nn.Linear(width, inner, bias=False)
        self.convolution = ShortConvolution(2 * inner, kernel, provider=provider)
        self.forget, self.rate = nn.Linear(width, heads), nn.Linear(width, heads)
        self.ridge = nn.Parameter(torch.full((heads, inner // heads), math.log(math.expm1(1 - LEAST))))
        self.norm = RMSNorm(inner // heads, eps=1e-5)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        tail, memory = (None, None) if state is None else state
        qk, tail = self.convolution(self.qk(x), tail)
        q, k = (l2_norm(split_heads(part, self.heads)) for part in F.silu(qk).chunk(2, dim=-1))
        y, memory = ridge_read(
            q,
            k,
            split_heads(self.value(x), self.heads),
            log_forget=F.logsigmoid(at_least_float32(self.forget(x))),
            rate=at_least_float32(self.rate(x)).sigmoid(),
            ridge=F.softplus(self.ridge) + LEAST,
            steps=self.steps,
            state=memory,
            provider=self.provider,
        )
        return self.out(self.norm(y).flatten(2)), (tail, memory)

    def flops(self, time: int) -> Flops:
        """Of the law, with all steps."""
        keys = self.out.in_features // self.heads
        return ridge_read_flops(time, self.heads, keys, keys, self.steps)
