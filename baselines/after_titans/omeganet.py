"""OmegaNet: a memory that learns, at every token, the last few tokens anew (the Omega rule), from polynomial features of keys.

Behrouz et al. 2025, arXiv 2505.23735 (ATLAS), eqs. 9, 10; no code was published.

    M_t = alpha_t M_{t-1} - eta_t sum_{i = t-c+1 .. t} gamma_i grad 1/2 |M(phi(k_i)) - v_i|^2,   y_t = M_t(phi(q_t))
    M(x) = W_2 gelu(W_1 x);   phi: all products of at most two of a key's numbers, factors learned, 1 / i! at first

Letters: alpha what is kept, eta the rate, gamma in [0, 1] a token's weight, each from x; c the window. Gradients at the memory
of the last chunk's end, as in Titans. Shapes as in `models/ops/associative_memory/window_recurrence.py`.

Where the paper is silent:

- `memory.window=4`: c. One token and gamma = 1 are Titans' step without momentum.
- gamma depends on the token that is learned alone, not on the one that learns it: one sigmoid a head.
- `memory.key_width=16`: queries and keys are narrower than values, as phi has 1 + d + d (d + 1) / 2 numbers: 153 of 16, 2,145
  of 64. phi is brought to unit length, on which the range of the rate counts. `memory.degree=1` leaves keys as they are.
- The memory is the plain network: its `x +` cannot be added where phi(x) is wider than v.
- `memory.expansion=1`: hidden units for each value's channel. The first layer is wide already.
- The rate is at most Titans' bound here divided by the window, as a token is learned that often. `momentum=True` is S of Titans
  (eq. 33 without orthogonal steps).
- Values' unit length and the drawn memory are those of Titans here.

Deviation: alpha, eta and gamma are one number a head.
"""

from __future__ import annotations

from models.law import Law
from models.registry import register
from models.titans.omega_memory import PAPERS, Omega, OmegaMemory


@register(
    "omeganet",
    paper="Behrouz et al. 2025, arXiv 2505.23735",
    equation="M <- a M - r sum_window g grad |M(phi(k)) - v|^2;  y = M(phi(q))",
)
class OmegaNet(Omega):
    """The layer. State: the convolution's last inputs; M at the last anchor, the window before it and the open chunk's tokens."""

    law = Law(
        forget="alpha, per head, from x",
        compare="M(phi(k)) - v, over the last c tokens",
        write="-eta sum_c gamma grad |M(phi(k)) - v|^2",
        read="M(phi(q))",
    )
    reading = "the window, gamma of the learned token alone, narrow keys, a plain network, range of the rate, length of values"

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        momentum: bool = False,
        memory: OmegaMemory = PAPERS,
        provider: str = "auto",
    ):
        """`inner` is the width of values over all heads, the model's by default."""
        super().__init__(width, heads, inner, memory, momentum, None, provider)
