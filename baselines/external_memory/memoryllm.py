"""MemoryLLM: a pool of hidden rows in every layer, of which each segment of the text drops some at random and appends its own.

Y. Wang, Y. Gao et al. 2024, arXiv 2402.04624, Sections 3.1 and 3.2; code wangyu-ustc/MemoryLLM. Layer l has N rows P_l [N, D]:

    read     queries from the segment h, keys and values from [P_l | h], causal in h; pool at places 0 .. N - 1, text from N on
    write    a second pass over the segment, keys and values from [the last K rows of P_l | h]; a learned vector is added to the
             last K rows at every layer's input; what layer l makes of them are the new rows M_l [K, D]
    update   P_l <- [N - K rows of P_l, drawn at random and in order | M_l]: a row survives n updates by (1 - K / N)^n

The vector is added to the residual stream itself, layer after layer, as in the authors' code. Pool rows pass the layer's input
norm as the text does. A segment is written when the next begins, so that the last one of a text costs nothing.

The reading here: the model is trained with its memory from the first step, on texts in segments of `segment` tokens counted from
their start, and begins a text with a learned pool (the paper continues a pretrained Llama-2, with N 7,680 and K 256, and fills
the pool by repeating the first injection). What is dropped follows from (draw, update, layer) alone, the same for all rows, in
training and evaluation. Old rows are detached at each update: gradients reach one injection, the last, as in the paper.

Deviations: no begin-of-text row in front of the pool, as no token here is one; LoRA is left out: everything is trained.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import linear_flops, rotary, split_heads
from models.ops.flops import Flops, attention_flops
from models.ops.providers import note
from models.registry import register
from models.shell.model import Block, LanguageModel, Size

Cache = tuple[Tensor, Tensor]  # keys, turned, and values [b, n, h, d]
# Pool [b, L, N, D], updates so far, the open segment's embedded rows [b, n, D], each layer's cache, its pool's part first.
State = tuple[Tensor, int, Tensor, tuple[Cache, ...]]


class PoolAttention(nn.Module):
    """Causal attention of a segment; its state is the cache of keys and values, in which a layer's pool stands first."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        for layer, scale in ((self.query, 1.0), (self.key, 1.0), (self.value, 1.0), (self.out, 0.5)):
            nn.init.normal_(layer.weight, std=scale * width**-0.5)

    def hold(self, rows: Tensor) -> Cache:
        """Keys and values of pool rows [b, n, D] that stand before the text."""
        return rotary(split_heads(self.key(rows), self.heads), 0), split_heads(self.value(rows), self.heads)

    def forward(self, x: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        note("sdpa")
        before = state[0].shape[1]
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        new = rotary(k, before), v
        keys, values = (torch.cat([old.to(part.dtype), part], 1) for old, part in zip(state, new, strict=True))
        seen = torch.ones(x.shape[1], keys.shape[1], dtype=torch.bool, device=x.device).tril(before)
        q, k, v = (part.transpose(1, 2) for part in (rotary(q, before), keys, values))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)
        return self.out(y.flatten(2)), (keys, values)


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

    def __init__(self, size: Size, feed: int, segment: int = 64, pool: int = 64, rows: int = 8, draw: int = 0):
        """`draw` decides which rows an update drops."""
        if not 1 <= rows <= min(segment, pool):
            raise ValueError(f"memoryllm needs 1 <= rows ({rows}) <= segment ({segment}) and pool ({pool}).")
        mixers = [PoolAttention(size.width, size.heads) for _ in range(size.depth)]
        super().__init__(size, [Block(size.width, mixer, feed) for mixer in mixers])
        self.segment, self.rows, self.draw = segment, rows, draw
        self.pool = nn.Parameter(torch.randn(size.depth, pool, size.width) * 0.02)  # as the embedding
        self.fresh = nn.Parameter(torch.randn(size.width) * 0.02)

    @property
    def period(self) -> int:
        """The segment."""
        return self.segment

    def hidden(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        x, start, hidden = self.embedding(tokens), 0, []
        if state is None:
            state = self.pool.repeat(len(tokens), 1, 1, 1), 0, x[:, :0], ()
        while start < tokens.shape[1]:
            if state[2].shape[1] == self.segment:
                state = self._updated(*state[:3])
            stop = min(tokens.shape[1], start + self.segment - state[2].shape[1])
            h, state = self._within(x[:, start:stop], state)
            hidden.append(h)
            start = stop
        return self.norm(torch.cat(hidden, dim=1)), state

    def flops(self, time: int) -> Flops:
        """Of attention in both passes, and of the pool's keys and values and the second pass in everything else."""
        pool, width = self.pool.shape[1:]
        written, total, rows = (time - 1) // self.segment, Flops(0, 0), 0
        for start in range(0, time, self.segment):
            part = min(self.segment, time - start)
            total = total.plus(attention_flops(part, pool + part, width))
        total = total.plus(attention_flops(self.segment, self.rows + self.segment, width).times(written)).times(
            len(self.blocks)
        )
        total = total.plus(linear_flops(self.blocks, written * self.segment))
        rows = (written + 1) * pool + written * self.rows
        return total.plus(Flops(4.0, 8.0).times(rows * width * width * len(self.blocks)))

    def _within(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a piece x [b, t, D] of one segment."""
        pool, updates, begun, caches = state
        h, after = x, []
        for layer, block in enumerate(self.blocks):
            cache = caches[layer] if caches else block.mixer.hold(block.mixer_norm(pool[:, layer].to(x.dtype)))
            h, cache = block(h, cache)
            after.append(cache)
        return h, (pool, updates, torch.cat([begun.to(x.dtype), x], 1), tuple(after))

    def _updated(self, pool: Tensor, updates: int, x: Tensor) -> State:
        """The pool after a whole segment of embedded rows x, and an empty segment."""
        new = []
        for layer, block in enumerate(self.blocks):
            x = torch.cat([x[:, : -self.rows], x[:, -self.rows :] + self.fresh.to(x.dtype)], 1)
            newest = pool[:, layer, -self.rows :].to(x.dtype)
            x, _ = block(x, block.mixer.hold(block.mixer_norm(newest)))
            kept = torch.tensor(self._kept(updates, layer), dtype=torch.long, device=x.device)
            new.append(torch.cat([pool[:, layer].detach()[:, kept], x[:, -self.rows :].to(pool.dtype)], 1))
        return torch.stack(new, 1), updates + 1, x[:, :0].clone(), ()

    def _kept(self, update: int, layer: int) -> list[int]:
        """The places of the rows that an update keeps in a layer, in order."""
        count = self.pool.shape[1]
        return sorted(random.Random(f"{self.draw} {update} {layer}").sample(range(count), count - self.rows))
