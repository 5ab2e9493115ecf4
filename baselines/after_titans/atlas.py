"""ATLAS: the Omega rule with momentum, whose steps are made orthogonal by Newton-Schulz (Muon).

Behrouz et al. 2025, arXiv 2505.23735, eqs. 32-34; no code was published.

    S_t = theta_t S_{t-1} - sum_{i = t-c+1 .. t} gamma_i grad 1/2 |M(phi(k_i)) - v_i|^2
    M_t = alpha_t M_{t-1} + eta_t NS5(S_t),   y_t = M_t(phi(q_t))

M, phi, the window and the letters as in `omeganet.py`, which also says what the paper leaves open; theta is the momentum.
NS5 is that of Muon: five steps of an odd polynomial that bring all singular values near 1.

Where the paper is silent, or has two readings:

- `orthogonal="chunk"`: NS5 is taken of S after a chunk's last token alone, which stands for all that chunk's steps; tokens before
  it read what the last chunk's memory has left. "token" takes NS5 of every S_t, as the equations; that computes every token's
  weights, many times the work. With `memory.chunk=1` they are one.
- eta stands outside S (eq. 33; eqs. 57, 58 have it inside, where a step would lose it: NS5 does not see a factor).
- The rate is at most `rate_bound`, in Titans' range here: a step's size is that of eta, whatever the error, and a chunk's steps
  move a layer by at most 0.75 in spectral norm.
- theta is 0.9 and eta 0.05 of its bound at first: NS5 brings up small singular values of S, and with them rounding, by up to
  485. A memory that has learned large rates is noisy in half precision; the law itself is.
- A memory of two layers does not forget what two texts once differed by, rounding included. It lies in the law: in its float64
  loop at width 64, texts 1e-15 apart at their first token are 4e-14 of the largest output apart after 512 tokens, 2e-11 after
  1,024, 3e-6 after 2,048; the compiled form does the same, and is at 5e-2 after 3,072. NS5 alone is not why: at width 16 it
  brings up a random difference of S by 11 to 13 (S's singular values lie a hundred to six hundred apart), but by 16 in a memory
  of one layer (`memory.memory_depth=1`), which forgets: 1e-15 after 4,096. Of two layers each steps at the other's weights. So
  only a memory of more layers than one says that it amplifies rounding.
- NS5 divides by |S| + 1e-3, not Muon's + 1e-7: its gradient grows as the inverse.

Deviation: alpha, eta, theta and gamma are one number a head.
"""

from __future__ import annotations

from typing import Literal

from models.law import Law
from models.registry import register
from models.titans.omega_memory import PAPERS, Omega, OmegaMemory

# Why decoding a long text is asked stretch by stretch of a memory whose layers step at each other's weights.
AMPLIFIES = "an orthogonal step is as long for a small difference as for a large one"


@register(
    "atlas",
    paper="Behrouz et al. 2025, arXiv 2505.23735",
    equation="S <- m S - sum_window g grad |M(phi(k)) - v|^2;  M <- a M + r NS5(S);  y = M(phi(q))",
)
class Atlas(Omega):
    """The layer. State as OmegaNet's, and S at the last anchor."""

    law = Law(
        forget="alpha, per head, from x",
        compare="M(phi(k)) - v, over the last c tokens",
        write="S = theta S - sum_c gamma grad |M(phi(k)) - v|^2, eta NS5(S)",
        read="M(phi(q))",
    )
    reading = (
        "NS5 once a chunk, eta outside S, bound of the rate, first values of theta and eta; what omeganet leaves open"
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        orthogonal: Literal["chunk", "token"] = "chunk",
        memory: OmegaMemory = PAPERS,
        provider: str = "auto",
    ):
        """`inner` is the width of values over all heads, the model's by default."""
        if orthogonal not in ("chunk", "token"):
            raise ValueError(f"Unknown orthogonalisation '{orthogonal}'; choose chunk or token.")
        super().__init__(width, heads, inner, memory, True, orthogonal, provider)
        self.amplifies_rounding = AMPLIFIES if memory.memory_depth > 1 else ""
