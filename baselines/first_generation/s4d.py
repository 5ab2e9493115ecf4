"""S4D: a diagonal state space for every channel, the same at every token, so that a text is one convolution.

Gu, Gupta, Goel, Re 2022, arXiv 2206.11893, as the authors' minimal code (`models/s4/s4d.py` of state-spaces/s4) has it:

    h_t = a * h_{t-1} + b x_t,   y_t = 2 Re sum_n C_n h_tn + D x_t,   out = u * sigmoid(z),  (u, z) = W_o gelu(y) + bias
    zero-order hold: a = e^(dt A), b = (a - 1) / A;   bilinear: a = (1 + dt A / 2) / (1 - dt A / 2), b = dt / (1 - dt A / 2)

x [b, t, d]; each of the d channels has n complex numbers h, halves of conjugate pairs (the paper's N / 2). Re A = -1/2 at first
and is learned as log(-Re A); Im A is S4D-Lin's pi n, S4D-Inv's or S4D-LegS's. C is complex normal of mean square 1, log dt
uniform in [log 0.001, log 0.1], D normal; there is no B. C and D decay as all weights there, the constants of A and dt do not.

Deviations: the authors hold the learning rate of A and dt at 0.001 at most, here it is everybody's; no dropout inside the layer.
"""

from __future__ import annotations

from torch import Tensor

from models.law import Law
from models.layers.diagonal_system import DiagonalSystem
from models.ops.convolution import convolution
from models.ops.convolution.flops import convolution_flops
from models.ops.flops import Flops
from models.registry import register


@register(
    "s4d",
    paper="Gu, Gupta, Goel and Re 2022, arXiv 2206.11893",
    equation="h <- a . h + b x;  y = 2 Re C h + D x,  a = exp(dt A)",
)
class S4D(DiagonalSystem):
    """The S4D layer. State: h [b, d, n, 2], real and imaginary parts."""

    law = Law(
        forget="a, complex, per number, learned",
        compare="-",
        write="b x",
        read="2 Re C h + D x",
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        states: int = 32,
        init: str = "lin",
        discretisation: str = "zoh",
        provider: str = "auto",
    ):
        """`states` is n; `init` is lin, inv or legs, `discretisation` zoh or bilinear. `heads` is not used.

        `inner` is the number of channels; where it is not the model's width, its default, a product in front makes them.
        """
        super().__init__(width, inner, states, init, discretisation, provider)

    def run(self, x: Tensor, forget: Tensor, write: Tensor, C: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        return convolution(x, forget, write, C, state=state, provider=self.provider)

    def flops(self, time: int) -> Flops:
        """Of the convolution."""
        return convolution_flops(time, self.out.in_features, self.states)
