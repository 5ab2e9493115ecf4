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

from torch import Tensor

from models.law import Law
from models.layers import at_least_float32
from models.layers.diagonal_system import DiagonalSystem
from models.ops.convolution import liquid
from models.ops.convolution.flops import liquid_flops
from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.flops import diagonal_flops
from models.ops.flops import Flops
from models.registry import register

MOST = 4  # degrees


@register(
    "liquid-s4",
    paper="Hasani et al. 2022, arXiv 2209.12951",
    equation="h <- (a + b x) . h + b x;  y = 2 Re C h + D x",
)
class LiquidS4(DiagonalSystem):
    """The Liquid-S4 layer. State: h1 to hP as real and imaginary parts [b, P, d, n, 2]; h [b, d n, 2] where it is exact."""

    law = Law(
        forget="a, complex, per number, learned",
        compare="-",
        write="b x (1 + h), up to `degree`",
        read="2 Re C h + D x",
    )
    reading = "causal: all products of inputs in order; the authors' code flips time or takes the last inputs' alone"
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
        super().__init__(width, inner, states, init, discretisation, provider)
        if not 1 <= degree <= MOST:
            raise ValueError(f"Liquid-S4 needs a degree from 1 to {MOST}, not {degree}.")
        self.degree, self.exact = degree, exact

    def run(self, x: Tensor, forget: Tensor, write: Tensor, C: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.exact:
            return self._every_product(x, forget, write, C, state)
        return liquid(x, forget, write, C, self.degree, state, provider=self.provider)

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
