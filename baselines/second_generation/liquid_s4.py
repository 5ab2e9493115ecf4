"""Liquid-S4, read causally: a diagonal state space whose input also multiplies what the state holds.

Hasani et al. 2022, arXiv 2209.12951, eqs. 5 to 9:

    h_t = (a + b x_t) * h_{t-1} + b x_t,   y_t = 2 Re sum_n C_n h_tn + D x_t,   out = u * sigmoid(z),  (u, z) = W_o gelu(y) + bias

Written out, that h is a sum over products of inputs. The paper keeps those of at most P inputs, P from 2 to 4, here `degree`:

    h1_t = a * h1_{t-1} + b x_t,   hp_t = a * hp_{t-1} + b x_t * h(p-1)_{t-1},   h = h1 + .. + hP

x [b, t, d]; each of the d channels has n complex numbers h, halves of conjugate pairs (the paper's N / 2). a, b, C, D, their
initialisation and the layer are those of S4D (Gu et al. 2022, arXiv 2206.11893): zero-order hold, Re A = -1/2, S4D-Lin.
`exact` keeps every product, by the first line; it is far slower, and unstable where |a + b x| stays above 1.

Deviations: the authors' code (raminmh/liquid-s4) flips time, takes the products of the text's last inputs alone, or leaves a out
of the corrections, none of which is causal; this is the causal reading of its "KB" with all combinations of inputs. The
learning rate of A and dt is everybody's; no dropout inside; one layer and the shell's SwiGLU a block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import at_least_float32
from models.ops.convolution import liquid
from models.ops.convolution.discrete import bilinear, zero_order_hold
from models.ops.convolution.flops import liquid_flops
from models.ops.convolution.initial import POLES, complex_normal, log_steps, poles, repeated
from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.flops import diagonal_flops
from models.ops.flops import Flops
from models.registry import register

DISCRETE = {"zoh": zero_order_hold, "bilinear": bilinear}
MOST = 4  # degrees


@register(
    "liquid-s4",
    paper="Hasani et al. 2022, arXiv 2209.12951",
    equation="h <- (a + b x) . h + b x;  y = 2 Re C h + D x",
)
class LiquidS4(nn.Module):
    """The Liquid-S4 layer. State: h1 to hP as real and imaginary parts [b, P, d, n, 2]; h [b, d n, 2] where it is exact."""

    law = Law(
        forget="a, complex, per number, learned",
        compare="-",
        write="b x (1 + h), up to `degree`",
        read="2 Re C h + D x",
    )
    reading = "causal: all products of inputs in order; the authors' code flips time or takes the last inputs' alone"
    period = 32  # the chunk of the chunked form
    fixed_state = True
    state_setting = "states"
    no_weight_decay = ("log_dt", "log_real", "imaginary")
    with_weight_decay = ("C", "D")
    family_exception = (
        "its numbers are complex, each forgets by itself as a gate from the token says, and lower degrees enter higher ones: "
        "real and imaginary parts and degrees mix without a comparison"
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        states: int = 32,
        degree: int = 2,
        exact: bool = False,
        init: str = "lin",
        discretisation: str = "zoh",
        provider: str = "auto",
    ):
        """`states` is n; `degree` P, of no meaning if `exact`; `init` is lin, inv or legs. `heads` is not used.

        `inner` is the number of channels; where it is not the model's width, its default, a product in front makes them.
        """
        super().__init__()
        inner = width if inner is None else inner
        if init not in POLES or discretisation not in DISCRETE:
            raise ValueError(
                f"Liquid-S4 has init {', '.join(POLES)} and discretisation {', '.join(DISCRETE)}, "
                f"not {init!r} and {discretisation!r}."
            )
        if states < 1 or not 1 <= degree <= MOST:
            raise ValueError(f"Liquid-S4 needs states >= 1 and a degree from 1 to {MOST}, not {states} and {degree}.")
        self.provider, self.states, self.degree, self.exact = provider, states, degree, exact
        self.discrete = DISCRETE[discretisation]
        self.project = nn.Identity() if inner == width else nn.Linear(width, inner, bias=False)
        self.log_dt = nn.Parameter(log_steps(inner))
        self.log_real = nn.Parameter(torch.full((inner, states), 0.5).log())
        self.imaginary = nn.Parameter(repeated(poles(init, states), inner))
        self.C = nn.Parameter(complex_normal(inner, states))
        self.D = nn.Parameter(torch.randn(inner))
        self.out = nn.Linear(inner, 2 * width)

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        x, h = self.project(x), None if state is None else state[0]
        real, imaginary, log_dt, C = (at_least_float32(p) for p in (self.log_real, self.imaginary, self.log_dt, self.C))
        forget, write = self.discrete(log_dt.exp(), torch.complex(-real.exp(), imaginary))
        if self.exact:
            y, h = self._every_product(x, forget, write, torch.view_as_complex(C), h)
        else:
            y, h = liquid(x, forget, write, torch.view_as_complex(C), self.degree, h, provider=self.provider)
        return F.glu(self.out(F.gelu(y + self.D * x)), dim=-1), (h,)

    def _every_product(self, x, forget, write, C, h) -> tuple[Tensor, Tensor]:
        given = write * at_least_float32(x)[..., None]
        h, last = diagonal_scan((forget + given).flatten(2), given.flatten(2), h, provider=self.provider)
        return 2 * (C * h.unflatten(2, C.shape)).sum(-1).real.to(x.dtype), last

    def flops(self, time: int) -> Flops:
        """Of the convolutions, or of the scan."""
        channels = self.out.in_features
        if self.exact:
            return diagonal_flops(time, channels * self.states, complex_numbers=True)
        return liquid_flops(time, channels, self.states, self.degree)
