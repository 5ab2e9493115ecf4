"""Muon's approximate orthogonalisation of a matrix: five steps of an odd polynomial on its singular values."""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
# Added to the length by which a matrix is divided. Muon's 1e-7 is for an optimiser that nobody differentiates: where a matrix is
# small, the gradient that passes here grows as 1 / length.
SMALL = 1e-3


def newton_schulz(s: Tensor) -> Tensor:
    """Singular values of s [n ..., in, out] brought to between about 0.7 and 1.2 (Jordan et al. 2024), its vectors kept.

    Five times `X <- a X + (b X X^T + c (X X^T)^2) X`, from `X = S / |S|_F`, on the smaller side. 0 stays 0.
    """
    turned = s.shape[-2] > s.shape[-1]
    x = s.mT if turned else s
    x = (x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) + SMALL)).flatten(0, -3)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.unflatten(0, s.shape[:-2])
    return x.mT if turned else x
