"""Where compiled layers write what their way back reads, and the gradients of what their maps made."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Kept(NamedTuple):
    """What a layer keeps of a segment for its way back, [depth, n, b, ..]: `native.c` says what each is."""

    unit: Tensor
    unit_ask: Tensor | None
    unit_feed: Tensor
    scale: Tensor
    scale_ask: Tensor | None
    scale_feed: Tensor
    qkv: Tensor
    shares: Tensor
    attended: Tensor
    asked: Tensor | None
    seen: Tensor | None
    found: Tensor | None
    gates: Tensor
    active: Tensor
    held: Tensor | None


class Slopes(NamedTuple):
    """The gradients of what the maps made, [depth, n, b, ..]."""

    qkv: Tensor
    out: Tensor
    asked: Tensor | None
    find: Tensor | None
    gates: Tensor
    down: Tensor
    held: Tensor | None


class Sizes(NamedTuple):
    """How many of each there are."""

    depth: int
    pieces: int  # segments of which something is kept
    texts: int
    rows: int  # of a segment, the memory's among them where it stands there
    held: int  # rows that layers read
    width: int
    heads: int
    units: int
    together: int  # numbers side by side

    def up(self, count: int) -> int:
        return count + -count % self.together

    def rooms(self, like: Tensor) -> Kept:
        """Where what is kept goes, of the dtype of `like`."""

        def new(*shape: int) -> Tensor:
            return like.new_empty(self.depth, self.pieces, self.texts, *shape)

        wide, read = (self.rows, self.width), self.held > 0
        shares = self.heads, self.rows
        return Kept(
            new(*wide), new(*wide) if read else None, new(*wide),
            new(self.rows), new(self.rows) if read else None, new(self.rows),
            new(self.rows, 3 * self.width), new(*shares, self.up(self.rows)), new(*wide),
            new(*wide) if read else None, new(*shares, self.up(self.held)) if read else None, new(*wide) if read else None,
            new(self.rows, 2 * self.up(self.units)), new(self.rows, self.up(self.units)),
            new(self.held, 2 * self.width) if read else None,
        )  # fmt: skip

    def slopes(self, like: Tensor) -> Slopes:
        """Where the gradients of what the maps made go."""

        def new(*shape: int) -> Tensor:
            return like.new_empty(self.depth, self.pieces, self.texts, *shape)

        wide, read = (self.rows, self.width), self.held > 0
        return Slopes(
            new(self.rows, 3 * self.width), new(*wide),
            new(*wide) if read else None, new(*wide) if read else None,
            new(self.rows, 2 * self.up(self.units)), new(*wide), new(self.held, 2 * self.width) if read else None,
        )  # fmt: skip
