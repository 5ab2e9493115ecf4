"""LRU: the linear recurrent unit, a diagonal of complex numbers that lies inside the unit circle by construction.

Orvieto et al. 2023, arXiv 2303.06349, Sections 3 and 4 and its appendix's code:

    h_t = lambda * h_{t-1} + gamma * (B x_t),   y_t = Re(C h_t) + D * x_t
    lambda = exp(-exp(nu) + i exp(theta)),   gamma = exp(gamma_log), real, learned by itself
    out = W_1 u * sigmoid(W_2 u),   u = gelu(y),   both with a bias

|lambda| begins uniform over a ring's area between `least_radius` and `largest_radius`, its angle uniform up to `largest_angle`,
gamma as sqrt(1 - |lambda|^2); B and C are complex normal of variances 1 / d and 2 / N, D is N(0, 1). nu, theta and gamma_log
do not decay. The gated map behind is the layer's only mixing of channels, as in the paper: the shell adds no SwiGLU and depth is
solved instead. No code of the authors was published; GELU (tanh) and the drawing of W_1 and W_2 are those of
NicolasZucchet/minimal-LRU.

Deviations: RMSNorm before the layer, the paper's is a batch or layer norm; one learning rate for all (theirs is lower for nu,
theta and gamma_log).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import into_complex, lecun_normal, real_part
from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.flops import diagonal_flops
from models.ops.flops import Flops, product_flops
from models.registry import register

LEAST = 1e-6  # no uniform number comes nearer to 0 or 1, where the logarithms below end


@register(
    "lru",
    paper="Orvieto et al. 2023, arXiv 2303.06349",
    equation="h <- lambda h + gamma (B x);  y = Re(C h) + D x,  lambda = exp(-exp(nu) + i exp(theta))",
)
class LRU(nn.Module):
    """The linear recurrent unit and its gated map. State: h as pairs of real numbers [b, N, 2]."""

    law = Law(
        forget="lambda, complex, per number, learned",
        compare="-",
        write="gamma (B x)",
        read="Re(C h) + D x",
    )
    fixed_state = True
    mixes_channels = True
    no_weight_decay = ("nu", "theta", "gamma_log", "D")
    with_weight_decay = ("B", "C")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        least_radius: float = 0.0,
        largest_radius: float = 1.0,
        largest_angle: float = 2 * math.pi,
        provider: str = "auto",
    ):
        """`inner` is N, how many complex numbers the state has: half the width by default. `heads` is not used."""
        super().__init__()
        inner = max(1, width // 2) if inner is None else inner
        if not 0 <= least_radius < largest_radius <= 1 or not 0 < largest_angle <= 2 * math.pi:
            raise ValueError(
                "LRU needs 0 <= least_radius < largest_radius <= 1 and largest_angle in (0, 2 pi], not "
                f"{least_radius}, {largest_radius} and {largest_angle}."
            )
        self.provider = provider
        area = torch.rand(inner).clamp(LEAST, 1 - LEAST)
        squared = area * (largest_radius**2 - least_radius**2) + least_radius**2
        self.nu = nn.Parameter((-squared.log() / 2).log())
        self.theta = nn.Parameter((largest_angle * torch.rand(inner).clamp_min(LEAST)).log())
        self.gamma_log = nn.Parameter(torch.log1p(-squared) / 2)
        self.B = nn.Parameter(torch.randn(inner, 2, width) * (2 * width) ** -0.5)
        self.C = nn.Parameter(torch.randn(width, inner, 2) * inner**-0.5)
        self.D = nn.Parameter(torch.randn(width))
        self.out = nn.Linear(width, 2 * width)
        self.out.weight = nn.Parameter(lecun_normal(2 * width, width, fan_in=width))
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        given = into_complex(x, self.B * self.gamma_log.exp()[:, None, None])
        turn = torch.polar((-self.nu.double().exp()).exp(), self.theta.double().exp()).to(given.dtype)
        h, last = diagonal_scan(turn, given, None if state is None else state[0], provider=self.provider)
        y = real_part(h, self.C, x.dtype) + self.D * x
        value, gate = self.out(F.gelu(y, approximate="tanh")).chunk(2, dim=-1)
        return value * gate.sigmoid(), (last,)

    def flops(self, time: int) -> Flops:
        """Of B, C and the recurrence."""
        width, states, _ = self.C.shape
        return product_flops(4.0 * time * width * states).plus(diagonal_flops(time, states, complex_numbers=True))
