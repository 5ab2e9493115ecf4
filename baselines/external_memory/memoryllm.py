"""MemoryLLM: a pool of hidden rows in every layer, of which each segment of the text drops some at random and appends its own.

Y. Wang, Y. Gao et al. 2024, arXiv 2402.04624, Sections 3.1 and 3.2; code wangyu-ustc/MemoryLLM. Layer l has N rows P_l [N, D]:

    read     queries from the segment h, keys and values from [P_l | h], causal in h; pool at places 0 .. N - 1, text from N on
    write    a second pass over the segment, keys and values from [the last K rows of P_l | h]; a learned vector is added to the
             last K rows at every layer's input; what layer l makes of them are the new rows M_l [K, D]
    update   P_l <- [N - K rows of P_l, drawn at random and in order | M_l]: a row survives n updates by (1 - K / N)^n

The vector is added to the residual stream itself, layer after layer, as in the authors' code. Pool rows pass the layer's input
norm as the text does. A segment is written when the next begins, so that the last one of a text costs nothing. `inject="same"`
saves the second pass: the new rows M_l are what the reading itself makes of the last K rows, without the vector, so that they
have seen the whole pool.

The reading here: the model is trained with its memory from the first step, on texts in segments of `segment` tokens counted from
their start, and begins a text with a learned pool (the paper continues a pretrained Llama-2, with N 7,680 and K 256, and fills
the pool by repeating the first injection). What is dropped follows from (draw, update, layer) alone, the same for all rows, in
training and evaluation. Old rows are detached at each update, as in the paper: a token's gradient reaches the last injection,
and an earlier one only through the K newest rows that a pass has read.

Whole segments are read at once, a layer at a time: what a write pass needs of the one before are K rows, so that only those
last K rows of each segment are computed one segment after the other.

Deviations: no begin-of-text row in front of the pool, as no token here is one; LoRA is left out: everything is trained.

Speed: a training step of one row of 512 tokens on one thread of a CPU takes 1.9 times the reference Transformer's at width 64
(depth 3) and 2 times at width 128 (depth 4). Where the last K rows go segment by segment, the gradient of each map's weight is
taken once for all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from baselines.external_memory.pool_layer import Cache, PoolBlock, beside, joined, kept
from models.law import Law
from models.layers import linear_flops
from models.ops.flops import Flops, attention_flops, product_flops
from models.registry import register
from models.shell.model import LanguageModel, Size
from models.shell.segments import in_blocks

# Pool [b, L, N, D]; updates so far; what the open segment is written from: its embedded rows [b, n, D], or with inject="same"
# its last K rows behind each layer [b, L, K or fewer, D]; each layer's cache, its pool's part first; none before a segment.
State = tuple[Tensor, int, Tensor, tuple[Cache, ...]]


@register(
    "memoryllm",
    paper="Wang, Gao et al. 2024, arXiv 2402.04624",
    equation="y = softmax(q [P_l | K]^T) [P_l | V];  P_l <- [N - K random rows of P_l | the segment's last K]",
)
class MemoryLLM(LanguageModel):
    """A whole language model with `pool` rows in each layer, of which a segment of `segment` tokens replaces `rows`.

    State: the pool, the number of updates, the open segment's embedded rows and caches; bounded by one segment.
    """

    law = Law(
        forget="K random rows of N", compare="-", write="a pass over the segment", read="softmax over [pool | segment]"
    )
    reading = "It is trained with its pool from the first step, and begins each text with a learned pool."
    fixed_state = True
    detaches = "old rows of the pool are cut off at each update"
    with_weight_decay = ("pool",)
    no_weight_decay = ("fresh",)

    def __init__(
        self,
        size: Size,
        feed: int,
        segment: int = 64,
        pool: int = 64,
        rows: int = 8,
        draw: int = 0,
        inject: Literal["own", "same"] = "own",
    ):
        """`draw` decides which rows an update drops; `inject` whether new rows come of a pass of their own or of the reading."""
        if not 1 <= rows <= min(segment, pool):
            raise ValueError(f"memoryllm needs 1 <= rows ({rows}) <= segment ({segment}) and pool ({pool}).")
        super().__init__(size, [PoolBlock(size.width, size.heads, feed) for _ in range(size.depth)])
        self.segment, self.rows, self.draw = segment, rows, draw
        self.pool = nn.Parameter(torch.randn(size.depth, pool, size.width) * 0.02)  # as the embedding
        self.fresh = nn.Parameter(torch.randn(size.width) * 0.02) if inject == "own" else None

    @property
    def period(self) -> int:
        """The segment."""
        return self.segment

    def hidden(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        x, start, hidden = self.embedding(tokens), 0, []
        if state is None:
            pool = self.pool.repeat(len(tokens), 1, 1, 1)
            state = pool, 0, self._unwritten(x), ()
        while start < tokens.shape[1]:
            pool, _, _, caches = state
            count = caches[0][0].shape[1] - pool.shape[2] if caches else 0
            if count == self.segment:
                state, count = self._updated(state), 0
            stop = min(tokens.shape[1], start + self.segment - count)
            if count == 0 and stop < tokens.shape[1]:
                stop = tokens.shape[1]
                h, state = self._segments(x[:, start:], *state[:2])
            else:
                h, state = self._within(x[:, start:stop], state)
            hidden.append(h)
            start = stop
        return self.norm(torch.cat(hidden, dim=1)), state

    def flops(self, time: int) -> Flops:
        """Of attention in both passes, and of all rows but the tokens in everything else."""
        (pool, width), depth, own = self.pool.shape[1:], len(self.blocks), self.fresh is not None
        count, size, block = -(-time // self.segment), min(self.segment, time), self.blocks[0]
        seen = self.rows if own else pool  # memory rows that a write reads
        held = product_flops(2 * width * width)  # keys and values of one memory row
        total = attention_flops(size, pool + size, width).times(count).plus(held.times(count * pool))
        total = total.plus(linear_flops(block, count * size - time))
        chain = attention_flops(self.rows, seen + size, width)
        chain = chain.plus(linear_flops(nn.ModuleList([block.mixer.out, block.feed]), self.rows))
        if own:
            chain = chain.plus(held.times(seen)).plus(linear_flops(block.mixer.qkv, size))
        total = total.plus(chain.times(count - 1)).times(depth)
        if not own:
            return total
        whole = nn.ModuleList([block.mixer.out, block.feed])
        size -= self.rows
        again = attention_flops(size, seen + size, width).plus(linear_flops(whole, size))
        return total.plus(again.times((count - 1) * (depth - 1)))

    def _unwritten(self, x: Tensor) -> Tensor:
        """What an empty segment is written from, in a text of rows x [b, .., D]."""
        layers = (len(self.blocks),) if self.fresh is None else ()
        return x.new_zeros(len(x), *layers, 0, x.shape[-1])

    def _within(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a piece x [b, t, D] of one segment."""
        pool, updates, begun, caches = state
        h, after, last = x, [], []
        for layer, block in enumerate(self.blocks):
            cache = caches[layer] if caches else block.hold(pool[:, layer], x.dtype)
            h, cache = block(h, cache)
            after.append(cache)
            last.append(h[:, -self.rows :])
        if self.fresh is not None:
            begun = torch.cat([begun.to(x.dtype), x], 1)
        else:
            begun = torch.cat([begun.to(x.dtype), torch.stack(last, 1)], 2)[:, :, -self.rows :]
        return h, (pool, updates, begun, tuple(after))

    def _segments(self, x: Tensor, pool: Tensor, updates: int) -> tuple[Tensor, State]:
        """Read x [b, t, D], more than a segment, from a segment's first token on, all segments of a layer at once."""
        time, kind = x.shape[1], x.dtype
        rest, h = (time - 1) % self.segment + 1, in_blocks(x, 0, self.segment)
        several, written, h = h.shape[:2], h[:, :-1], h.flatten(0, 1)
        pools, caches, last = [], [], []
        for layer, block in enumerate(self.blocks):
            own = block.project(h, pool.shape[2])
            if self.fresh is None:
                parts = [part.unflatten(0, several)[:, :-1] for part in (h, *own)]
                after, _, held = self._chained(layer, parts, pool[:, layer], updates)
                held = beside([*held, block.hold(after[-1], kind)])
            else:
                after, written = self._written(layer, written, pool[:, layer], updates)
                held = block.hold(torch.stack(after, 1).flatten(0, 1), kind)
            cache = joined(held, own[1:])
            h = block.rest(h, own[0], cache)
            pools.append(after[-1])
            caches.append(tuple(part.unflatten(0, several)[:, -1, : pool.shape[2] + rest].clone() for part in cache))
            last.append(h.unflatten(0, several)[:, -1, max(0, rest - self.rows) : rest])
        begun = torch.stack(last, 1) if self.fresh is None else x[:, -rest:].clone()
        h = h.unflatten(0, several).flatten(1, 2)[:, :time]
        return h, (torch.stack(pools, 1), updates + several[1] - 1, begun, tuple(caches))

    def _written(self, layer: int, x: Tensor, pool: Tensor, updates: int) -> tuple[list[Tensor], Tensor]:
        """A layer's pools before, between and behind segments x [b, n, s, D] of the write pass, and what the next layer gets."""
        block, x = self.blocks[layer], self._marked(x)
        flat = x.flatten(0, 1)
        own = block.project(flat, self.rows)
        pools, last, held = self._chained(
            layer, [part.unflatten(0, x.shape[:2]) for part in (flat, *own)], pool, updates
        )
        if layer + 1 < len(self.blocks) and self.rows < x.shape[2]:
            flat, q, *own = (part[:, : -self.rows] for part in (flat, *own))
            first = block.rest(flat, q, joined(beside(held), own)).unflatten(0, x.shape[:2])
            x = torch.cat([first, torch.stack(last, 1)], 2)
        elif layer + 1 < len(self.blocks):
            x = torch.stack(last, 1)
        return pools, x

    def _chained(
        self, layer: int, parts: list[Tensor], pool: Tensor, updates: int
    ) -> tuple[list[Tensor], list[Tensor], list[Cache]]:
        """A layer's pools [b, N, D] before, between and behind segments; each one's last rows, and what of its memory it read."""
        pools, own = [pool], self.fresh is not None

        def renew(new: Tensor, number: int) -> Tensor:
            pools.append(self._renewed(pools[-1], new, layer, updates + number))
            return new if own else pools[-1]

        return pools, *self.blocks[layer].chain(parts, pool[:, -self.rows :] if own else pool, self.rows, renew)

    def _updated(self, state: State) -> State:
        """The state behind a whole segment, and an empty segment."""
        pool, updates, x, _ = state
        new = []
        for layer, block in enumerate(self.blocks):
            if self.fresh is None:
                rows = x[:, layer]
            else:
                x, _ = block(self._marked(x), block.hold(pool[:, layer, -self.rows :], x.dtype))
                rows = x[:, -self.rows :]
            new.append(self._renewed(pool[:, layer], rows, layer, updates))
        return torch.stack(new, 1), updates + 1, self._unwritten(state[2]), ()

    def _marked(self, x: Tensor) -> Tensor:
        """Segments [.., n, D] with the learned vector added to the rows that shall be memory."""
        return torch.cat([x[..., : -self.rows, :], x[..., -self.rows :, :] + self.fresh.to(x.dtype)], -2)

    def _renewed(self, pool: Tensor, new: Tensor, layer: int, update: int) -> Tensor:
        """A layer's pool [b, N, D] with new rows [b, K, D] in place of those that this update drops."""
        places = kept(pool.shape[1], self.rows, self.draw, update, layer)
        stay = torch.tensor(places, dtype=torch.long, device=pool.device)
        return torch.cat([pool.detach().index_select(1, stay), new.to(pool.dtype)], 1)
