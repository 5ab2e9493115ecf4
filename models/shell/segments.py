"""Texts read in segments that are counted from the first token, so that a text may be cut anywhere.

Here is what segment models share: where a piece of a text meets segment borders, attention inside the open segment, a cross
attention to memory slots, blocks that stand for all segments at once, and a language model that reads segments in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Cache, causal_attention
from models.layers import rotary, split_heads
from models.shell.model import Block, LanguageModel, Size


def pieces(time: int, count: int, segment: int) -> Iterator[slice]:
    """Slices of the next `time` tokens that each lie in one segment, where the open segment has `count` tokens already."""
    start = 0
    while start < time:
        stop = min(time, start + segment - (count + start) % segment)
        yield slice(start, stop)
        start = stop


def cut(x: Tensor, count: int, segment: int) -> tuple[Tensor, ...]:
    """x [b, t, ..] cut where `pieces` says. Their gradients are joined once: of slices, each would be of all t."""
    return x.split([piece.stop - piece.start for piece in pieces(x.shape[1], count, segment)], 1)


def in_blocks(x: Tensor, before: int, size: int) -> Tensor:
    """x [b, t, ..] -> [b, n, size, ..]: whole blocks, zeros before the row that stands at place `before` and behind the last."""
    count = -(-(before + x.shape[1]) // size)
    pad = (0, 0) * (x.dim() - 2) + (before, count * size - before - x.shape[1])
    return F.pad(x, pad).unflatten(1, (count, size))


class SegmentAttention(nn.Module):
    """Causal attention inside one segment; its state is the segment's cache of keys and values."""

    def __init__(self, width: int, heads: int, provider: str = "auto"):
        super().__init__()
        self.heads, self.provider = heads, provider
        # Values are projected apart: as a view of a common projection they would keep all of it alive in the cache.
        self.query_key = nn.Linear(width, 2 * width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        for layer, scale in ((self.query_key, 1.0), (self.value, 1.0), (self.out, 0.5)):
            nn.init.normal_(layer.weight, std=scale * width**-0.5)

    def forward(self, x: Tensor, state: Cache | None) -> tuple[Tensor, Cache]:
        start = 0 if state is None else state[2]
        q, k = (split_heads(part, self.heads) for part in self.query_key(x).chunk(2, dim=-1))
        v = split_heads(self.value(x), self.heads)
        y, state = causal_attention(rotary(q, start), rotary(k, start), v, state, self.provider)
        return self.out(y.flatten(2)), state


def row_by_row(layer: SegmentAttention, x: Tensor) -> Tensor:
    """What a SegmentAttention makes of one whole segment x [b, t, d], from the equation: a softmax for each row; for loops."""
    q, k = (rotary(split_heads(part, layer.heads), 0) for part in layer.query_key(x).chunk(2, dim=-1))
    v, ys = split_heads(layer.value(x), layer.heads), []
    for t in range(x.shape[1]):
        scores = torch.einsum("bhd,bjhd->bhj", q[:, t], k[:, : t + 1]) / q.shape[-1] ** 0.5
        ys.append(torch.einsum("bhj,bjhd->bhd", scores.softmax(-1), v[:, : t + 1]).flatten(1))
    return layer.out(torch.stack(ys, 1))


class CrossAttention(nn.Module):
    """Attention of rows to other rows, such as memory slots: `W_o softmax(q k / sqrt(d)) v`, x [b, n, d] over [b, m, d]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        for layer, scale in ((self.query, 1.0), (self.key_value, 1.0), (self.out, 0.5)):
            nn.init.normal_(layer.weight, std=scale * width**-0.5)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.out(self.attend(self.query(x), rows))

    def attend(self, q: Tensor, rows: Tensor) -> Tensor:
        """What queries [b, n, d] find in the rows, before the output projection."""
        k, v = self.key_value(rows.to(q.dtype)).chunk(2, dim=-1)  # rows of a memory may be kept in more digits
        q, k, v = (split_heads(part, self.heads).transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SegmentModel(LanguageModel):
    """A language model that reads one segment after the other, all layers of each; subclasses say `begin` and `within`.

    Its state is a tuple whose second entry counts tokens: modulo `segment`, those of the open segment.
    """

    fixed_state = True

    def __init__(self, size: Size, blocks: list[Block], segment: int):
        super().__init__(size, blocks)
        self.segment = segment

    @property
    def period(self) -> int:
        """The segment."""
        return self.segment

    def begin(self, x: Tensor) -> tuple:
        """The state before a text whose embedded tokens are x [b, t, d]."""
        raise NotImplementedError

    def within(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """Read a piece x [b, t, d] of one segment: normed rows [b, t, d] and the state behind it."""
        raise NotImplementedError

    def several(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """`within` for two or more whole segments x [b, n * segment, d] from a border on, where `at_once` allows it."""
        raise NotImplementedError

    def at_once(self, x: Tensor) -> bool:
        """Whether embedded tokens x pass by `several` where they fill whole segments; by default never."""
        return False

    def hidden(self, tokens: Tensor, state: Any) -> tuple[Tensor, tuple]:
        x, hidden = self.embedding(tokens), []
        state = self.begin(x) if state is None else state
        for piece in self._cut(x, state[1]):
            h, state = (self.within if piece.shape[1] <= self.segment else self.several)(piece, state)
            hidden.append(h)
        return torch.cat(hidden, dim=1), state

    def _cut(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """x in segments, or what ends the open one, whole segments together, and the rest."""
        head = min(-count % self.segment, x.shape[1])
        whole, rest = divmod(x.shape[1] - head, self.segment)
        if whole < 2 or not self.at_once(x):
            return cut(x, count, self.segment)
        return x.split([part for part in (head, whole * self.segment, rest) if part], 1)
