"""Sums over the past and what is read of them: shared by every form.

A state's sums are divided by the number n of tokens in them, so that they stay of the size of one token's; `plus` is added to
the sum of weights itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple  # (mean of phi(k) [v | 1] [b, h, f, v + 1], [log-scale [b, h] of the exponential kernel,] tokens in it)


def widened(v: Tensor, normalise: bool) -> Tensor:
    """v with a column of ones behind it where weights are to be summed too: numerator and denominator are one product."""
    return F.pad(v, (0, 1), value=1.0) if normalise else v


def quotient(sums: Tensor, plus: float) -> Tensor:
    """Numerator over denominator + `plus`; the least number takes its place only where every weight has underflowed."""
    weights = sums[..., -1:]
    weights = weights + plus if plus else weights.clamp_min(torch.finfo(weights.dtype).tiny)
    return sums[..., :-1] / weights


def total(mean: Tensor, tokens: int) -> Tensor:
    """The sum of what `tokens` tokens wrote."""
    return mean * tokens


def mean(total: Tensor, tokens: int) -> Tensor:
    """The sum divided by the tokens in it."""
    return total / (tokens or 1)


def wide_kind(*inputs: Tensor | None) -> torch.dtype:
    """float64 if any input is, else float32."""
    return torch.float64 if any(x is not None and x.dtype == torch.float64 for x in inputs) else torch.float32
