"""What OmegaNet and ATLAS share: polynomial features of queries and keys, a memory's settings, and the layer around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.ops.associative_memory import window_memory
from models.ops.associative_memory.features import polynomial_features
from models.ops.associative_memory.flops import omega_flops
from models.ops.associative_memory.window_recurrence import WindowRule
from models.ops.flops import Flops
from models.titans.memory_layer import MOMENTUM_BOUND, inner_width, rate_bound
from models.titans.surroundings import MemoryLayer, drawn_memory, held, sizes_of

# Of orthogonal steps at first. They are as long as their rate, whatever the error, and Newton-Schulz brings up the small singular
# values that rounding leaves in S: a slow start and a momentum of 0.9 over many tokens keep such noise small.
MOMENTUM_LOGIT, RATE_LOGIT = 2.5, -3.0


@dataclass(frozen=True)
class OmegaMemory:
    """A memory that learns windows; `baselines/after_titans/omeganet.py` says what the paper leaves open.

    `key_width` is that of queries and keys before their features, at most the values'; `rate_bound` None is Titans' bound here
    (`docs/titans.md`), for a gradient divided by the window.
    """

    memory_depth: int = 2
    expansion: int = 1
    chunk: int = 16
    window: int = 4
    degree: int = 2
    key_width: int = 16
    activation: Literal["gelu", "silu"] = "gelu"
    rate_bound: float | None = None
    unit_values: bool = True
    convolution: bool = True


PAPERS = OmegaMemory()


class PolynomialFeatures(nn.Module):
    """phi(x): all products of at most `degree` of x's numbers, a learned factor for each degree, together of unit length.

    [..., width] -> [..., features]; x as it is for degree 1. Factors begin at 1 / i!, those of the exponential's series.
    """

    no_weight_decay = ("factors",)

    def __init__(self, width: int, degree: int, provider: str = "auto"):
        super().__init__()
        if degree < 1:
            raise ValueError(f"degree must be at least 1, which leaves keys as they are, not {degree}.")
        self.degree, self.provider = degree, provider
        self.features = sum(math.comb(width + i - 1, i) for i in range(degree + 1)) if degree > 1 else width
        if degree > 1:
            self.factors = nn.Parameter(torch.tensor([1 / math.factorial(i) for i in range(degree + 1)]))

    def forward(self, x: Tensor) -> Tensor:
        if self.degree == 1:
            return x
        # The compiled form is of degree 2; others of a model that asks for it are computed as they can be.
        provider = "auto" if self.provider == "native" and self.degree != 2 else self.provider
        return polynomial_features.form_or_auto(provider)(x, self.factors)


class Omega(MemoryLayer):
    """The layer around a memory that learns windows, by plain or by orthogonal steps."""

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None,
        memory: OmegaMemory,
        momentum: bool,
        orthogonal: str | None,
        provider: str,
    ):
        values = inner_width(width, heads, inner) // heads
        keys = min(memory.key_width, values)
        if keys < 1:
            raise ValueError(f"key_width must be at least 1, not {memory.key_width}.")
        gates = 4 if momentum else 3
        super().__init__(width, heads, keys, values, gates, memory.convolution, memory.unit_values, provider)
        self.features = PolynomialFeatures(keys, memory.degree, provider)
        self.rule = WindowRule(memory.chunk, memory.activation, memory.window, orthogonal)
        self.period = max(memory.chunk, memory.window)
        self.sizes = sizes_of(self.features.features, values, memory.memory_depth, memory.expansion)
        bound = rate_bound(memory.chunk, memory.memory_depth) if memory.rate_bound is None else memory.rate_bound
        self.bound = bound if orthogonal else bound / memory.window
        self.initial = drawn_memory(heads, self.sizes)
        if orthogonal:
            for gate, logit in ((0, MOMENTUM_LOGIT), (2, RATE_LOGIT)):
                nn.init.constant_(self.gates.bias[gate * heads : (gate + 1) * heads], logit)

    def remember(self, q: Tensor, k: Tensor, v: Tensor, logits: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        *momentum, weight, rate, forget = logits
        eta = MOMENTUM_BOUND * momentum[0].sigmoid() if momentum else None
        bound = self.bound if self.rule.orthogonal else held(self.bound, self.initial, self.sizes)
        rate = rate.sigmoid() * bound
        if eta is not None and not self.rule.orthogonal:
            rate = rate * (1 - eta)
        return window_memory(
            self.features(q),
            self.features(k),
            v,
            weight=weight.sigmoid(),
            rate=rate,
            keep=torch.sigmoid(-forget),
            momentum=eta,
            initial=tuple(self.initial),
            rule=self.rule,
            state=state,
            provider=self.provider,
        )

    def flops(self, time: int) -> Flops:
        """Of the law."""
        return omega_flops(time, self.rule, self.heads, self.sizes)
