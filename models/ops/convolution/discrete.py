"""From a system in continuous time, `h' = A h + B x`, to steps of length dt, for each channel.

A is diagonal, or diagonal less a product of rank one, `A = diag(Lam) - P P^*`, over whole conjugate pairs of which one half is
stored: `P^* h` is twice a real part.
"""

from __future__ import annotations

import torch
from torch import Tensor


def zero_order_hold(dt: Tensor, A: Tensor, B: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """`e^(dt A)` and `(e^(dt A) - 1) / A B`: the input is held over a step. dt [d]; A, B complex [d, n].

    Computed in double precision, for the angle of an exponent may be many turns.
    """
    kind, A = A.dtype, A.to(torch.complex128)
    exponent = dt[:, None].double() * A
    return exponent.exp().to(kind), (expm1(exponent) / A * B).to(kind)


def bilinear(dt: Tensor, A: Tensor, B: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """`(1 + dt A / 2) / (1 - dt A / 2)` and `dt B / (1 - dt A / 2)`, the trapezoidal rule. dt [d]; A, B complex [d, n]."""
    half = dt[:, None] * A / 2
    return (1 + half) / (1 - half), dt[:, None] * B / (1 - half)


def bilinear_of_rank_one(dt: Tensor, Lam: Tensor, P: Tensor, B: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The trapezoidal rule for `A = diag(Lam) - P P^*`: forget a, write b and erase (u, v) with `Ab h = a h - u <v, h>`.

    With D = 1 / (1 - dt Lam / 2), by Sherman and Morrison,

        (1 - dt A / 2)^-1 = D - s/2 D P P^* D,   s = dt / (1 + dt/2 P^* D P),   Ab = 2 (1 - dt A / 2)^-1 - 1
        a = 2 D - 1,   u = s D P,   v = conj(P) D,   b = dt D B - dt s/2 D P (P^* D B)

    dt [d]; Lam, P, B complex [d, n] or [1, n].
    """
    step = dt[:, None]
    a, D = bilinear(dt, Lam)[0], 1 / (1 - step * Lam / 2)
    v = P.conj() * D
    scale = step / (1 + step * (v * P).sum(-1, keepdim=True).real)
    u = scale * D * P
    seen = 2 * (v * B).sum(-1, keepdim=True).real
    return a, step * (D * B - u * seen / 2), (u, v)


def expm1(z: Tensor) -> Tensor:
    """`e^z - 1` without the loss of digits near 0, for complex z."""
    half = (z.imag / 2).sin()
    real = torch.expm1(z.real) * z.imag.cos() - 2 * half.square()
    return torch.complex(real, z.real.exp() * z.imag.sin())
