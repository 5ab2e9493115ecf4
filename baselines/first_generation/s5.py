"""S5: one state space for all channels of a layer, diagonal, begun as blocks of HiPPO.

Smith, Warrington and Linderman 2022, arXiv 2208.04933, Sections 3 and 4, as the authors' code (lindermanlab/S5) has it:

    h_t = Lb h_{t-1} + Bb x_t,   y_t = 2 Re(C h_t) + D * x_t
    Lb = exp(L dt),   Bb = (Lb - 1) / L * B     (zero-order hold, a step dt for every state)
    out = u * sigmoid(W u + b),   u = gelu(y)

Complex, of conjugate pairs only one half, hence the 2. L begins as the eigenvalues of HiPPO-LegS's normal part, in J blocks of
size P / J, B and C as V* B_0 and C_0 V with its eigenvectors V; B_0 and C_0 have variance 1 / P, which is what the code's
drawing comes to, D is N(0, 1), dt log-uniform in [0.001, 0.1]. Real parts are held below -1e-4, the code's `clip_eigs`. The
gated map is the layer's only mixing of channels, as in the paper: the shell adds no SwiGLU and depth is solved instead. L, dt
and B do not decay.

Deviations: as many blocks as the model has heads, theirs 8; RMSNorm before the layer, theirs batch norm or LayerNorm; one
learning rate for all (theirs is lower for L, dt and B).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import into_complex, lecun_normal, real_part
from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.flops import diagonal_flops
from models.ops.flops import Flops, product_flops
from models.registry import register

LEAST_DECAY = 1e-4


@register(
    "s5",
    paper="Smith, Warrington and Linderman 2022, arXiv 2208.04933",
    equation="h <- exp(L dt) h + (exp(L dt) - 1) / L B x;  y = 2 Re(C h) + D x",
)
class S5(nn.Module):
    """The S5 layer and its gated map. State: h as pairs of real numbers [b, P / 2, 2]."""

    law = Law(
        forget="exp(L dt), complex, per number, learned",
        compare="-",
        write="(exp(L dt) - 1) / L B x",
        read="2 Re(C h) + D x",
    )
    fixed_state = True
    mixes_channels = True
    no_weight_decay = ("real", "imaginary", "log_step", "B", "D")
    with_weight_decay = ("C",)

    def __init__(self, width: int, heads: int, inner: int | None = None, provider: str = "auto"):
        """`inner` is P, the number of states with their conjugates: twice the width by default, in blocks of P / heads."""
        super().__init__()
        inner = 2 * width if inner is None else inner
        if inner % (2 * heads):
            raise ValueError(f"S5's inner {inner} must be a multiple of twice its {heads} heads; change inner.")
        self.provider = provider
        eigenvalues, vectors = (part.to(torch.empty(0).device) for part in hippo(inner // heads))
        # The last two axes of a product with V are those of one block.
        first = lecun_normal(heads, inner // heads, width, fan_in=inner).to(vectors.dtype)
        last = lecun_normal(width, heads, inner // heads, 2, fan_in=inner).double()
        B = (vectors.mH @ first).flatten(0, 1)
        C = (torch.view_as_complex(last) @ vectors).flatten(1)
        self.real = nn.Parameter(eigenvalues.real.repeat(heads).float())
        self.imaginary = nn.Parameter(eigenvalues.imag.repeat(heads).float())
        self.B = nn.Parameter(torch.view_as_real(B).transpose(1, 2).float().contiguous())
        self.C = nn.Parameter(torch.view_as_real(C).float().contiguous())
        self.D = nn.Parameter(torch.randn(width))
        self.log_step = nn.Parameter(torch.empty(inner // 2).uniform_(math.log(1e-3), math.log(1e-1)))
        self.gate = nn.Linear(width, width)
        self.gate.weight = nn.Parameter(lecun_normal(width, width, fan_in=width))
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        turn, written = self.discretised()
        given = into_complex(x, written)
        h, last = diagonal_scan(
            turn.to(given.dtype), given, None if state is None else state[0], provider=self.provider
        )
        u = F.gelu(real_part(h, 2 * self.C, x.dtype) + self.D * x, approximate="tanh")
        return u * self.gate(u).sigmoid(), (last,)

    def discretised(self) -> tuple[Tensor, Tensor]:
        """Lb [P / 2], and Bb as pairs [P / 2, 2, width]; their difference from 1 is taken in double width."""
        eigenvalues = torch.complex(self.real.double().clamp_max(-LEAST_DECAY), self.imaginary.double())
        turn = torch.exp(eigenvalues * self.log_step.double().exp())
        scale = torch.view_as_real((turn - 1) / eigenvalues).to(self.B.dtype)
        (real, imaginary), (on, across) = self.B.unbind(1), scale[..., None].unbind(1)
        return turn, torch.stack([on * real - across * imaginary, on * imaginary + across * real], 1)

    def flops(self, time: int) -> Flops:
        """Of B, C and the recurrence."""
        width, states, _ = self.C.shape
        return product_flops(4.0 * time * width * states).plus(diagonal_flops(time, states, complex_numbers=True))


@cache
def hippo(size: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues [size / 2] with negative imaginary part, and their vectors [size, size / 2], of HiPPO-LegS's normal part.

    That part is -1/2 I plus the skew matrix -1/2 sqrt((2n + 1)(2m + 1)) below the diagonal.
    """
    root = (2 * torch.arange(size, dtype=torch.float64, device="cpu") + 1).sqrt() / math.sqrt(2)
    skew = -torch.outer(root, root).tril(-1)
    frequencies, vectors = torch.linalg.eigh(-1j * (skew - skew.mT))
    return torch.complex(-torch.ones_like(frequencies) / 2, frequencies)[: size // 2], vectors[:, : size // 2]
