"""S4: the structured state space, HiPPO's matrix as diagonal plus low rank, the same at every token.

Gu, Goel, Re 2021, arXiv 2111.00396, with the parameters and layer of the authors' code (`models/s4/s4.py` of state-spaces/s4):

    A = diag(Lam) - P P^*,   Ab = (1 - dt/2 A)^-1 (1 + dt/2 A),   Bb = (1 - dt/2 A)^-1 dt B
    h_t = Ab h_{t-1} + Bb x_t,   y_t = 2 Re C h_t + D x_t,   out = u * sigmoid(z),  (u, z) = W_o gelu(y) + bias

x [b, t, d]; each of the d channels has n complex numbers h, halves of conjugate pairs (the paper's N / 2). Lam, P and B begin
as HiPPO-LegS and are shared by all channels, as in the authors' language models; log(-Re Lam), -Im Lam, P, B, C, log dt and D
are learned. C is complex normal of mean square 1, log dt uniform in [log 0.001, log 0.1], D normal. C and D decay as there.

Deviations: C is learned itself, where the authors learn C (1 - Ab^T) for the T of the first text; eigenvectors are turned so
that P and B are real, where the authors clip Im B at 2, which depends on the phases that LAPACK happens to give; the learning
rate of Lam, P, B and dt is everybody's (theirs at most 0.001); no dropout inside; one S4 layer and the shell's SwiGLU a block
(theirs: two, and a GELU network of four widths).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import at_least_float32
from models.layers.derived import Derived
from models.ops.convolution import convolution
from models.ops.convolution.discrete import bilinear_of_rank_one
from models.ops.convolution.flops import convolution_flops
from models.ops.convolution.initial import complex_normal, hippo_legs, log_steps, repeated
from models.ops.flops import Flops
from models.registry import register


@register(
    "s4",
    paper="Gu, Goel and Re 2021, arXiv 2111.00396",
    equation="h <- Ab h + Bb x;  y = 2 Re C h + D x,  A = diag(Lam) - P P^*",
)
class S4(nn.Module):
    """The S4 layer. State: h [b, d, n, 2], real and imaginary parts."""

    law = Law(
        forget="Ab, diagonal and low rank, learned",
        compare="-",
        write="Bb x",
        read="2 Re C h + D x",
    )
    period = 32  # the chunk of the chunked form
    fixed_state = True
    state_setting = "states"
    no_weight_decay = ("log_dt", "log_real", "imaginary", "P", "B")
    with_weight_decay = ("C", "D")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        states: int = 32,
        systems: int = 1,
        provider: str = "auto",
    ):
        """`states` is n; so many `systems` of Lam, P and B share the channels, each an equal number. `heads` is not used.

        `inner` is the number of channels; where it is not the model's width, its default, a product in front makes them.
        """
        super().__init__()
        inner = width if inner is None else inner
        if states < 1 or systems < 1 or inner % systems:
            raise ValueError(
                f"S4 needs states >= 1, and systems that share its {inner} channels equally, not {states} and {systems}."
            )
        self.provider, self.states, self.copies = provider, states, inner // systems
        self.project = nn.Identity() if inner == width else nn.Linear(width, inner, bias=False)
        imaginary, P = (repeated(part, systems) for part in hippo_legs(states))
        self.log_dt = nn.Parameter(log_steps(inner))
        self.log_real = nn.Parameter(torch.full((systems, states), 0.5).log())
        self.imaginary = nn.Parameter(-imaginary)
        self.P = nn.Parameter(torch.stack([P, torch.zeros_like(P)], -1))
        self.B = nn.Parameter(torch.stack([2**0.5 * P, torch.zeros_like(P)], -1))
        self.C = nn.Parameter(complex_normal(inner, states))
        self.D = nn.Parameter(torch.randn(inner))
        self.out = nn.Linear(inner, 2 * width)
        self._held = Derived()

    def system(self) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """In steps of dt: forget a, write b, read C and erase (u, v), complex [d, n] each."""
        learned = self.log_dt, self.log_real, self.imaginary, self.P, self.B
        forget, write, erase = self._held(self._in_steps, *learned)
        return forget, write, torch.view_as_complex(at_least_float32(self.C)), erase

    def _in_steps(self, log_dt: Tensor, *continuous: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        real, imaginary, P, B = (at_least_float32(p).repeat(self.copies, *[1] * (p.dim() - 1)) for p in continuous)
        Lam, P, B = torch.complex(-real.exp(), -imaginary), torch.view_as_complex(P), torch.view_as_complex(B)
        return bilinear_of_rank_one(at_least_float32(log_dt).exp(), Lam, P, B)

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        x, h = self.project(x), None if state is None else state[0]
        y, h = convolution(x, *self.system(), state=h, provider=self.provider)
        return F.glu(self.out(F.gelu(y + self.D * x)), dim=-1), (h,)

    def flops(self, time: int) -> Flops:
        """Of the convolution."""
        return convolution_flops(time, self.out.in_features, self.states, erase=True)
