"""What Moneta, Yaad and Memora share: the settings of their memory, its gates, and the layer around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from models.ops.associative_memory import retention_memory
from models.ops.associative_memory.flops import retention_flops
from models.ops.associative_memory.retention_rule import RetentionRule
from models.ops.flops import Flops
from models.titans.memory_layer import inner_width, rate_bound
from models.titans.surroundings import MemoryLayer, drawn_memory, held, sizes_of


@dataclass(frozen=True)
class MirasMemory:
    """A memory of MIRAS: its network and its chunk; the defaults are section 5.3 and 5.4's unless said.

    `rate_bound` None is Titans' bound here (`docs/titans.md`), below which the memory stays bounded, or half of it in
    Memora; the paper gives no range.
    """

    memory_depth: int = 2
    expansion: int = 4
    chunk: int = 16  # 16 or 64
    activation: Literal["gelu", "silu"] = "gelu"
    residual: bool = True
    rate_bound: float | None = None
    unit_values: bool = True  # the paper: queries and keys only
    convolution: bool = True


PAPERS = MirasMemory()


class Miras(MemoryLayer):
    """The layer around a memory of MIRAS, whose loss and retention `rule` says."""

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None,
        memory: MirasMemory,
        rule: RetentionRule,
        provider: str,
        thresholds: bool = False,
    ):
        head = inner_width(width, heads, inner) // heads
        super().__init__(
            width, heads, head, head, 3 if thresholds else 2, memory.convolution, memory.unit_values, provider
        )
        self.period, self.rule = memory.chunk, rule
        self.sizes = sizes_of(head, head, memory.memory_depth, memory.expansion)
        self.bound = rate_bound(memory.chunk, memory.memory_depth) if memory.rate_bound is None else memory.rate_bound
        self.initial = drawn_memory(heads, self.sizes)

    def remember(self, q: Tensor, k: Tensor, v: Tensor, logits: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        *others, rate, forget = logits
        return retention_memory(
            q,
            k,
            v,
            rate=rate.sigmoid() * self.largest_rate(),
            keep=torch.sigmoid(-forget),
            threshold=self.threshold(rate, *others),
            initial=self.first_weights(),
            rule=self.rule,
            state=state,
            provider=self.provider,
        )

    def largest_rate(self) -> Tensor | float:
        """The bound of the rates, [h]: a memory that is not bounded by how it is retained has a lower one where it is sharp."""
        return held(self.bound, self.initial, self.sizes) if self.rule.retention == "l2" else self.bound

    def threshold(self, like: Tensor) -> Tensor:
        """delta [b, t, h]; a loss without one does not look at it."""
        return torch.ones_like(like)

    def first_weights(self) -> tuple[Tensor, ...]:
        """What a text begins with, [h, in, out] per layer."""
        return tuple(self.initial)

    def flops(self, time: int) -> Flops:
        """Of the law."""
        return retention_flops(time, self.rule.chunk, self.heads, self.sizes)


def rule_of(memory: MirasMemory, **settings: Any) -> RetentionRule:
    """The rule of a memory with its loss and retention. Raises ValueError for one that cannot be."""
    return RetentionRule(memory.chunk, memory.activation, memory.residual, **settings)
