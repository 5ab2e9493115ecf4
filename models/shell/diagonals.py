"""Layers of several segments side by side, in models whose layers hand on a memory of their own.

Layer l of segment s waits for layer l - 1 of the same segment and for layer l of the segment before, and for nothing else: so
all pairs (l, s) of one sum l + s are computed at once, each layer with its own weights. depth + segments - 1 steps stand for
depth x segments (Sivtsov et al. 2025, arXiv 2506.05229, "diagonal batching"). Numbers are those of one pair after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.shell.layer_maps import Step, Steps

# A diagonal's rows [g, b, r, D] and memories [g, b, ..] and which it is -> rows and memories behind its layers.
Layers = Callable[[Tensor, Tensor, Step], tuple[Tensor, Tensor]]


class Diagonals(Steps):
    """The order in which step n has all layers l that are at segment n - l."""

    def listed(self) -> list[Step]:
        """The steps in their order."""
        count, depth = self.depth + self.segments - 1, self.depth
        return [Step(n, max(0, n - self.segments + 1), min(depth, n + 1), n < depth) for n in range(count)]

    def segment(self, step: Step, layer: int) -> int:
        """The segment at which a step's layer is."""
        return step.number - layer

    def run(self, layers: Layers, pieces: Sequence[Tensor], memory: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the last layer makes of each segment's rows [b, r, D], and the memories [depth, b, ..] behind the last segment.

        `memory` holds those of all layers before the first one.
        """
        waiting, entering = list(pieces), memory.split(1)
        below = held = None
        done, left = [], []
        for step in self.all:
            rows = [waiting[step.number][None]] if step.first == 0 else []
            rows = torch.cat([*rows, *([] if below is None else [below])])
            held = [] if held is None else [held]
            held = torch.cat([*held, *([entering[step.stop - 1]] if step.begins else [])])
            rows, held = layers(rows, held, step)
            below = rows
            if step.stop == self.depth:
                below, last = rows.split([len(rows) - 1, 1])
                done.append(last[0])
            if step.number - step.first == self.segments - 1:
                last, held = held.split([1, len(held) - 1])
                left.append(last)
        return done, torch.cat(left)
