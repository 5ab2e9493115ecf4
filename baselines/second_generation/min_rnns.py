"""minGRU and minLSTM: the gated ancestors with gates that see the token alone, so that they are linear in the state.

Feng et al. 2024, arXiv 2410.01201, Sections 3.1 and 3.2 and the log-space forms of Appendix B:

    minGRU    h <- (1 - z) h + z g(W_h x),   z = sigmoid(W_z x)
    minLSTM   h <- f' h + i' g(W_h x),       f' = f / (f + i), i' = i / (f + i),  f, i = sigmoid(W x)
    g(u) = u + 1/2 for u >= 0, sigmoid(u) below;   out = W_o h

f' and i' are sigmoids of softplus(-i~) - softplus(-f~) and of its negative, no quotient of small numbers. The paper's own scan
takes logarithms of h and loses digits; here h is scanned as it is. A causal convolution of 4 stands before, as in its language
model. Weights are drawn as `nn.Linear` draws them. No code of the authors was found.

Deviations: the convolution has no residual branch of its own; a text begins at h = 0 (the paper's log-space listings begin at a
positive number); the expansion of 3/2 is minGRU-pytorch's, the paper names several.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import ShortConvolution, at_least_float32
from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.flops import diagonal_flops
from models.ops.flops import Flops
from models.registry import register


class _MinRNN(nn.Module):
    """What both share: projections, convolution, scan. State: the convolution's last inputs, if it has one, and h [b, d]."""

    fixed_state = True
    parts = 0  # projections of the input, the candidate's last

    def __init__(self, width: int, heads: int, inner: int | None = None, kernel: int = 4, provider: str = "auto"):
        """`inner` is the width of the state, 3/2 of the model's by default; `kernel` 0 is no convolution. No `heads`."""
        super().__init__()
        inner = max(1, 3 * width // 2) if inner is None else inner
        if kernel < 0:
            raise ValueError(f"minGRU and minLSTM need kernel >= 0, 0 for no convolution, not {kernel}.")
        self.provider = provider
        self.convolution = ShortConvolution(width, kernel, bias=True, provider=provider) if kernel else None
        self.project = nn.Linear(width, self.parts * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        *tail, h = (None, None) if state is None else state
        if self.convolution is not None:
            x, *tail = self.convolution(x, *tail)
        *gates, candidate = (at_least_float32(part) for part in self.project(x).chunk(self.parts, dim=-1))
        keep, write = self.shares(*gates)
        h, last = diagonal_scan(keep, write * positive(candidate), h, provider=self.provider)
        return self.out(h.to(x.dtype)), (last,) if self.convolution is None else (*tail, last)

    def flops(self, time: int) -> Flops:
        """Of the recurrence."""
        return diagonal_flops(time, self.out.in_features)


@register(
    "mingru",
    paper="Feng et al. 2024, arXiv 2410.01201",
    equation="h <- (1 - z) h + z g(W_h x),  z = sigmoid(W_z x)",
)
class MinGRU(_MinRNN):
    """minGRU, one gate. State: the convolution's last inputs and h [b, d]."""

    law = Law(
        forget="1 - z, per channel, from x",
        compare="-",
        write="z g(W_h x)",
        read="h",
    )
    parts = 2

    @staticmethod
    def shares(update: Tensor) -> tuple[Tensor, Tensor]:
        """How much is kept of h and how much is written, 1 - z and z; neither as a difference."""
        return torch.sigmoid(-update), torch.sigmoid(update)


@register(
    "minlstm",
    paper="Feng et al. 2024, arXiv 2410.01201",
    equation="h <- f' h + i' g(W_h x),  f' = f / (f + i), i' = i / (f + i)",
)
class MinLSTM(_MinRNN):
    """minLSTM, a forget and an input gate that sum to 1. State: the convolution's last inputs and h [b, d]."""

    law = Law(
        forget="f', per channel, from x",
        compare="-",
        write="i' g(W_h x)",
        read="h",
    )
    parts = 3

    @staticmethod
    def shares(forget: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """How much is kept of h and how much is written, f' and i'."""
        apart = F.softplus(-given) - F.softplus(-forget)
        return torch.sigmoid(apart), torch.sigmoid(-apart)


def positive(u: Tensor) -> Tensor:
    """The paper's g, everywhere above 0: u + 1/2 for u >= 0, else sigmoid(u)."""
    return torch.where(u >= 0, u + 0.5, u.sigmoid())
