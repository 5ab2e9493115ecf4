"""Mamba-3: a state space of complex numbers, integrated by the trapezoidal rule, one input and one output a head (SISO).

Lahoti, Li, Chen, Wang et al. 2026, arXiv 2603.15569, in the form of the authors' code (state-spaces/mamba, mamba3.py):

    S_t = alpha_t S_{t-1} + (1 - lambda_t) Delta_t alpha_t k_{t-1} x_{t-1}^T + lambda_t Delta_t k_t x_t^T
    y_t = S_t^T q_t + D x_t,   out = W_out (y * silu(z))
    Delta = softplus(. + bias),   alpha = exp(A Delta),   A = -softplus(.) but at most -1e-4,   lambda = sigmoid(.)
    k, q = R(Theta) (norm(B) + bias_B), R(Theta) (norm(C) + bias_C),   Theta_t = Theta_{t-1} + pi tanh(angle_t) Delta_t

R turns neighbouring pairs of the first half of the N numbers; turning keys and queries does what a complex decay would. B, C and
the angles are shared by all heads, Delta, A and lambda are a head's own. There is no short convolution. The paper's models
alternate the layer with SwiGLU, as the shell does.

Each token is written twice, a step late for the second time, so one scan serves: token t is written at once with both weights,
lambda_t Delta_t + (1 - lambda_{t+1}) Delta_{t+1}, and the later one is taken back from its own output. The last token of a piece
waits in the state for the next one's weight. The first token of a text has none before it.

`activation` is that of A: "softplus", as in the paper's code, or "rational", 1 + u from 0 up and 1 / (1 - u) below, as in the
authors' later code. Angles are cumulated in float64 and reduced. D and all biases do not decay (the authors mark D and that of
Delta). Deviation: head width is `inner / heads` of the common size (the authors fix 64).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, at_least_float32, split_heads, step_bias
from models.ops.data_dependent_rotary import data_dependent_rotary
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register

SLOWEST = 1e-4  # the least -A
State = tuple[Tensor, Tensor, Tensor, Tensor]


@register(
    "mamba3",
    paper="Lahoti et al. 2026, arXiv 2603.15569",
    equation="S <- alpha S + (1 - lambda) Delta alpha k_before x_before^T + lambda Delta k x^T;  y = S^T q + D x,  k, q turned",
)
class Mamba3(nn.Module):
    """The Mamba-3 layer. State: Theta [b, h, N / 4], S [b, h, N, v], and the last token's k [b, h, N] and x [b, h, v]."""

    law = Law(
        forget="alpha, per head, from x; k, q turned",
        compare="-",
        write="lambda Delta k x^T, and the token before by 1 - lambda",
        read="S^T q + D x",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True
    state_setting = "states"
    no_weight_decay = ("step_bias", "bias_B", "bias_C", "D")
    family_exception = (
        "the angle by which keys and queries turn is itself a memory: it moves all that is written after it"
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        states: int = 128,
        activation: Literal["softplus", "rational"] = "softplus",
        provider: str = "auto",
    ):
        """`inner` is the width of x over all heads, twice the model's by default; `states` is N."""
        super().__init__()
        inner = 2 * width if inner is None else inner
        if inner % heads or states < 1:
            raise ValueError(f"Mamba-3 needs inner ({inner}) to be a multiple of heads ({heads}), and states >= 1.")
        if activation not in ("softplus", "rational"):
            raise ValueError(f"Unknown activation '{activation}' of Mamba-3; choose softplus or rational.")
        self.heads, self.activation, self.provider = heads, activation, provider
        self.widths = [inner, inner, states, states, heads, heads, heads, states // 4]
        self.project = nn.Linear(width, sum(self.widths), bias=False)
        self.step_bias = nn.Parameter(step_bias(heads))
        self.norm_B, self.norm_C = RMSNorm(states, eps=1e-5), RMSNorm(states, eps=1e-5)
        self.bias_B, self.bias_C = (nn.Parameter(torch.ones(heads, states)) for _ in range(2))
        self.D = nn.Parameter(torch.ones(heads))
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        angle, matrix, last_k, last_x = (None,) * 4 if state is None else state
        z, x, B, C, step, A, trapezoid, speed = self.project(x).split(self.widths, dim=-1)
        x, (step, A, trapezoid) = split_heads(x, self.heads), (at_least_float32(one) for one in (step, A, trapezoid))
        delta = F.softplus(step + self.step_bias)
        now = trapezoid.sigmoid() * delta  # lambda Delta, the weight of a token in its own step
        late = (-trapezoid).sigmoid() * delta  # (1 - lambda) Delta, that of the token before
        q, k, match, angle = data_dependent_rotary.form_or_auto(self.provider)(
            at_least_float32(self.norm_C(C)),
            at_least_float32(self.norm_B(B)),
            self.bias_C,
            self.bias_B,
            math.pi * torch.tanh(at_least_float32(speed)),
            delta,
            angle,
        )
        if matrix is not None:  # what the last token still had to write
            matrix = matrix + (late[:, 0, :, None] * last_k)[..., None] * last_x[:, :, None]
        later = F.pad(late[:, 1:], (0, 0, 0, 1))
        y, matrix = scan(
            q,
            k,
            at_least_float32(x),  # what is taken back below must be what was written, or a token hears of the next one
            log_forget=-self._decay(A) * delta,
            rate=now + later,
            state=matrix,
            provider=self.provider,
        )
        own = self.D - later * match
        y = (y + own[..., None] * x).flatten(2).to(z.dtype)
        return self.out(y * F.silu(z)), (angle, matrix, k[:, -1].clone(), at_least_float32(x[:, -1]).clone())

    def _decay(self, u: Tensor) -> Tensor:
        """-A."""
        if self.activation == "softplus":
            return F.softplus(u).clamp(min=SLOWEST)
        return torch.where(u >= 0, 1 + u, 1 / (1 - u.clamp(max=0))).clamp(min=SLOWEST)

    def flops(self, time: int) -> Flops:
        """Of the scan, each head with keys of its own."""
        return scan_flops(time, self.heads, self.widths[2], self.widths[0] // self.heads)
