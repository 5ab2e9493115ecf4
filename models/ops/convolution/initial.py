"""Where diagonal and near-diagonal state spaces begin: poles and projections from the theory of HiPPO.

Gu et al. 2020, arXiv 2008.07669 (HiPPO); Gu, Goel, Re 2021, arXiv 2111.00396 (its normal form); Gu et al. 2022, arXiv
2206.11893 (the diagonal ones).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

POLES = ("lin", "inv", "legs")


@cache
def hippo_legs(states: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS as `diag(Lam) - P P^*`: Im Lam < 0 and P > 0, float64 [states]; Re Lam is -1/2, and B is sqrt(2) P.

    `states` are the halves of conjugate pairs, so the matrix has N = 2 `states` rows: A[n, m] = -sqrt((2n+1)(2m+1)) below the
    diagonal, -(n+1) on it, B_n = sqrt(2n+1), and with P_n = sqrt(n + 1/2) A + P P^T is -1/2 and a skew matrix K, whose
    eigenvectors V give P <- V^* P. The length of each is unique, its phase is not: here it makes P real.
    """
    n = torch.arange(2 * states, dtype=torch.float64, device="cpu")  # even where only shapes are asked
    P = (n + 0.5).sqrt()
    skew = torch.outer(P, P)
    skew = skew.triu(1) - skew.tril(-1)
    values, vectors = torch.linalg.eigh(-1j * skew)
    return values[:states], (vectors[:, :states].mH @ P.to(vectors.dtype)).abs()


def poles(kind: str, states: int) -> Tensor:
    """Imaginary parts [states] of S4D's diagonal A, whose real parts are -1/2, float64; `kind` is one of `POLES`."""
    n, numbers = torch.arange(states, dtype=torch.float64, device="cpu"), 2 * states
    if kind == "lin":
        return math.pi * n
    if kind == "inv":
        return numbers / math.pi * (numbers / (2 * n + 1) - 1)
    return hippo_legs(states)[0]


def repeated(row: Tensor, count: int) -> Tensor:
    """`count` copies [count, n] of a row [n], in the default dtype and on the default device."""
    return torch.empty(count, *row.shape).copy_(row)


def log_steps(channels: int, low: float = 1e-3, high: float = 1e-1) -> Tensor:
    """Logarithms of step lengths, uniform between those of `low` and `high` [channels]."""
    return math.log(low) + torch.rand(channels) * (math.log(high) - math.log(low))


def complex_normal(*shape: int) -> Tensor:
    """Complex normal numbers of mean square 1 as pairs [*shape, 2]."""
    return torch.randn(*shape, 2) * 0.5**0.5
