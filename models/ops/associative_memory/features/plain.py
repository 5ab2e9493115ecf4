"""Polynomial features in plain PyTorch: all products of a row's numbers up to a degree, together of unit length."""

from __future__ import annotations

from functools import cache, reduce
from itertools import combinations_with_replacement

import torch
from torch import Tensor

EPSILON = 1e-6  # added to the squared length


def plain(x: Tensor, factors: Tensor) -> Tensor:
    """phi(x) [..., features] of x [..., width]: the products of degree i times `factors[i]`, divided by their length.

    In the order of `combinations_with_replacement`, degree after degree; the first is `factors[0]` itself.
    """
    factors = factors.to(x.dtype)
    parts = [factors[:1].expand(*x.shape[:-1], 1), factors[1] * x]
    for i in range(2, len(factors)):
        places = torch.tensor(_places(x.shape[-1], i), device=x.device)
        chosen = (x.index_select(-1, one) for one in places)
        parts.append(factors[i] * reduce(torch.mul, chosen))
    u = torch.cat(parts, -1)
    return u * torch.rsqrt(u.square().sum(-1, keepdim=True) + EPSILON)


@cache
def _places(width: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """Which numbers each product is made of: their places by factor. No tensors: those of inference mode do not train."""
    return tuple(zip(*combinations_with_replacement(range(width), degree), strict=True))
