"""What may be chosen of a neural memory: the same settings for LMM, MAC, MAG and MAL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.ops.neural_memory.recurrence import Rule


@dataclass(frozen=True)
class MemorySettings:
    """A neural memory's depth, its inner optimiser and its ablations; `docs/titans.md` says where each comes from.

    Each field is a setting of its own for models that have a memory: `--set titans-lmm.memory_depth=1`. Raises ValueError
    for a value that no memory can have.
    """

    memory_depth: int = 2  # layers of the memory's network
    expansion: int = 1  # hidden units per key
    chunk: int = 16  # tokens between two anchors of the gradient
    activation: Literal["gelu", "silu"] = "gelu"
    residual: bool = False
    exclusive: bool = False
    decayed: bool = False
    rate_bound: float | None = None  # None: the largest that keeps the memory bounded
    unit_values: bool = True
    layer_gates: bool = False
    forget: Literal["head", "channel", "none"] = "head"
    momentum: bool = True
    convolution: bool = True
    store_every: int | None = None  # tokens between two states that training keeps

    def __post_init__(self) -> None:
        rule = self.rule
        if self.forget not in ("head", "channel", "none"):
            raise ValueError(f"Unknown forgetting '{self.forget}'; choose head or channel, or none.")
        if self.memory_depth < 1 or self.expansion < 1:
            raise ValueError(
                f"memory_depth and expansion must be at least 1, not {self.memory_depth} and {self.expansion}."
            )
        every = self.store_every
        if every is not None and (every < 1 or every % rule.chunk):
            raise ValueError(f"store_every must be a multiple of the chunk of {self.chunk} tokens, not {every}.")

    @property
    def rule(self) -> Rule:
        """The inner optimiser. Raises ValueError for a chunk or an activation that it does not have."""
        return Rule(self.chunk, self.activation, self.residual, self.decayed, self.exclusive)
