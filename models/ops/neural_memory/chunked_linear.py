"""The linear neural memory in chunks, for every gradient anchor from one token to the whole chunk; exact.

Gates become coefficients in two running scans (`gate_table.py`), and blocks of tokens pass one another the memory and
the surprise (`linear_blocks.py`, where the formulas are). Where an anchor is a block, nothing is solved; where
several anchors share a block, one unit-triangular system serves them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.neural_memory.gate_table import coefficients
from models.ops.neural_memory.linear_blocks import Layout, blocks
from models.ops.neural_memory.recurrence import Rule, State, Weights, recurrence, resume, suspend

BLOCK = 32  # tokens computed together where anchors are younger than ALONE
ALONE = 16  # from this many tokens an anchor has a block of its own: no triangular system, but a longer chunk loop


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    momentum: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: Rule,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.neural_memory.recurrence.recurrence` for a memory of one matrix, in chunks; same shapes.

    Half precision is computed in float32, and states stay there. Raises ValueError for a deep or residual memory, or one
    whose channels forget at paces of their own.
    """
    if len(initial) > 1 or rule.residual or keep.dim() > 3:
        raise ValueError(
            "The linear form holds a single matrix without residual that forgets per head; use the operation 'deep memory'."
        )
    if not q.shape[1]:
        return recurrence(q, k, v, momentum=momentum, rate=rate, keep=keep, initial=initial, rule=rule, state=state)
    with torch.autocast(q.device.type, enabled=False):
        block = rule.chunk if rule.chunk >= ALONE else BLOCK // rule.chunk * rule.chunk
        cuts = Cuts(q, (k, v, momentum, rate, keep), initial, block, rule, state)
        momentum, rate, keep = (cuts.blocks(gate) for gate in (cuts.momentum, cuts.rate, cuts.keep))
        table, ends = coefficients(momentum, keep, cuts.last, rate)
        before = torch.cat([cuts.weights[0], cuts.surprise[0]], -2)
        layout = Layout(cuts.size, rule.chunk, rule.exclusive)
        y, after = blocks(
            cuts.q, cuts.k, cuts.v, table, ends, keep if rule.decayed else None, before.flatten(0, 1), layout
        )
        memory, surprise = after.unflatten(0, before.shape[:2]).split(k.shape[-1], -2)
    return cuts.new(y).to(q.dtype), suspend((memory.clone(),), (surprise.clone(),), cuts.tokens, rule.chunk)


class Cuts:
    """A text in whole blocks, [b, n * size, h, ...], in the dtype that the state is kept in.

    It begins with the tokens of the open chunk that the state carries, whose queries are zero. The end is filled with zeros;
    `last` is the row of the last block at which the new state stands: its last anchor.
    """

    def __init__(
        self, q: Tensor, tokens: tuple[Tensor, ...], initial: Weights, block: int, rule: Rule, state: State | None
    ):
        kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        tokens = tuple(part.to(kind) for part in tokens)
        self.weights, self.surprise, self.tokens, self.past = resume(tokens, tuple(w.to(kind) for w in initial), state)
        self.total = self.tokens[0].shape[1]
        self.size = min(self.total, block)
        self.last = self.total // rule.chunk * rule.chunk - (-(-self.total // self.size) - 1) * self.size
        q = F.pad(q.to(kind), (0, 0, 0, 0, self.past, 0)) if self.past else q.to(kind)
        self.q, self.k, self.v, self.momentum, self.rate, self.keep = (self._filled(x) for x in (q, *self.tokens))

    def _filled(self, x: Tensor) -> Tensor:
        short = -x.shape[1] % self.size
        return F.pad(x, (0, 0) * (x.dim() - 2) + (0, short)) if short else x

    def blocks(self, x: Tensor) -> Tensor:
        """[b, n * size, h, ...] -> [n, b * h, size, ...]."""
        return x.unflatten(1, (-1, self.size)).movedim((1, 3), (0, 2)).flatten(1, 2)

    def new(self, y: Tensor) -> Tensor:
        """What belongs to the new tokens."""
        return y[:, self.past : self.total]
