"""A memory in every layer, updated from that layer's rows behind each segment: Feng et al.'s document translation, read causally.

Y. Feng, F. Li, Z. Song, B. Zheng, P. Koehn 2022, arXiv 2205.01546 (Findings of NAACL): a memory unit in a Transformer, which is
updated from its states behind each sentence and which the next sentences read. In layer l, with its memory M and its rows H:

    read     h <- h + g Attn(h -> M),   g = sigmoid(w_g [h | read] + b_g)          behind the attention inside the segment
    write    c = softmax( W_m M (W_k H)^T / sqrt(d) ) W_v H,   u = sigmoid(w_u [M | c] + b_u),   M <- u M + (1 - u) c

The read's own W_k and W_v serve the write. M begins learned, N(0, 0.02). Gates are one number a row.

Reading: only the paper's abstract could be read and no code is known, so all of the above is ours: a decoder alone, segments of a
fixed number of tokens instead of sentences, H the layer's rows behind its SwiGLU, under a norm of their own. The paper's two
stages of training, sentences first and then documents, are `open_after`: so many optimiser steps with g = 0, then all of it. By
default there is one stage. A model that no training has begun has its memory open; one whose training ended sooner has it shut.

Deviations: rotary places from a segment's beginning, RMSNorm and SwiGLU as everywhere here; the memory is kept in float32 under
autocast, and decays as that of the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention import Cache
from models.law import Law
from models.layers import RMSNorm, at_least_float32, linear_flops, split_heads
from models.ops.dense.rows import added, unit
from models.ops.flops import Flops, attention_flops
from models.ops.softmax_attention.segment import across
from models.registry import register
from models.shell.diagonals import Diagonals
from models.shell.layer_maps import LayerBlocks, LayerMap, Step, covered
from models.shell.model import Block, Size
from models.shell.segments import CrossAttention, SegmentAttention, SegmentModel, row_by_row

# Each layer's memory [b, k, D]; tokens read since a cut; each layer's cache of the open segment and its rows so far [b, c, D].
State = tuple[tuple[Tensor, ...], int, tuple[Cache, ...], tuple[Tensor, ...]]


class MemoryBlock(Block):
    """A layer of the shell with a gated read of its memory between attention and SwiGLU, and what the memory becomes."""

    with_weight_decay = ("memory",)

    def __init__(self, width: int, heads: int, feed: int, slots: int):
        super().__init__(width, SegmentAttention(width, heads), feed)
        self.read_norm, self.reader, self.read_gate = (
            RMSNorm(width),
            CrossAttention(width, heads),
            nn.Linear(2 * width, 1),
        )
        self.write_norm, self.slot_query = RMSNorm(width), nn.Linear(width, width, bias=False)
        self.write_gate = nn.Linear(2 * width, 1)
        self.memory = nn.Parameter(torch.randn(slots, width) * 0.02)
        nn.init.normal_(self.slot_query.weight, std=width**-0.5)
        for gate in (self.read_gate, self.write_gate):
            nn.init.normal_(gate.weight, std=(2 * width) ** -0.5)
            nn.init.zeros_(gate.bias)

    def forward(
        self, x: Tensor, memory: Tensor, cache: Cache | None, opened: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        y, cache = self.mixer(self.mixer_norm(x), cache)
        return self.rest(x + y, memory, opened), cache

    def rest(self, x: Tensor, memory: Tensor, opened: Tensor | None) -> Tensor:
        """What stands behind the attention inside the segment; `opened` is 0 where the memory is not to be read yet."""
        h = self.read_norm(x)
        found = self.reader(h, memory)
        gate = at_least_float32(self.read_gate(torch.cat([h, found.to(h.dtype)], -1))).sigmoid()
        gate = gate if opened is None else gate * opened.to(gate.dtype)
        x = x + gate.to(x.dtype) * found
        return x + self.feed(self.feed_norm(x))

    def write(self, memory: Tensor, rows: Tensor) -> Tensor:
        """The memory [b, k, D] behind a segment with these rows [b, t, D]."""
        rows, memory = self.write_norm(rows), at_least_float32(memory)
        found = self.reader.attend(self.slot_query(memory.to(rows.dtype)), rows)
        kept = at_least_float32(self.write_gate(torch.cat([memory.to(rows.dtype), found.to(rows.dtype)], -1))).sigmoid()
        return kept * memory + (1 - kept) * found


class SideBySide:
    """The layers along diagonals, with memories [g, b, k, D]; what is asked of the same rows is one map, gates included."""

    def __init__(self, model: Feng, diagonals: Diagonals, rows: Tensor):
        """`rows` [b, t, D] of one segment."""
        blocks, (batch, time, width) = model.blocks, rows.shape
        slots, self.opened = len(blocks[0].memory), model.opened()
        self.blocks, self.heads = LayerBlocks(blocks, diagonals, batch * time), blocks[0].reader.heads
        self.eps = blocks[0].read_norm.eps

        def over_all(weights: list[Tensor], count: int) -> LayerMap:
            return LayerMap(torch.stack(weights), diagonals, batch * count)

        asked = [torch.cat([b.reader.query.weight, b.read_gate.weight[:, :width]]) * b.read_norm.weight for b in blocks]
        heard = [torch.cat([b.reader.out.weight, b.read_gate.weight[:, width:] @ b.reader.out.weight]) for b in blocks]
        self.query, self.out = over_all(asked, time), over_all(heard, time)
        keys = torch.stack([b.reader.key_value.weight for b in blocks])
        self.held = LayerMap(keys, diagonals, batch * slots)
        self.told = LayerMap(
            keys * torch.stack([b.write_norm.weight for b in blocks])[:, None], diagonals, batch * time
        )
        wanted = [torch.cat([b.slot_query.weight, b.write_gate.weight[:, :width]]) for b in blocks]
        self.wanted = over_all(wanted, slots)
        self.kept = over_all([b.write_gate.weight[:, width:] for b in blocks], slots)
        self.biases = [
            torch.stack([gate.bias for gate in gates])[:, None, None]
            for gates in zip(*((b.read_gate, b.write_gate) for b in blocks), strict=True)
        ]

    def __call__(self, x: Tensor, memory: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        width = x.shape[-1]
        read, write = (bias[step.first : step.stop] for bias in self.biases)
        x, n = added(x, self.blocks.attend(unit(x, self.eps), step), self.eps)
        q, gate = self.query(n, step).split([width, 1], -1)
        found, heard = self.out(self.attend(q, self.held(memory, step)), step).split([width, 1], -1)
        gate = (gate + heard + read).sigmoid()
        gate = gate if self.opened is None else gate * self.opened.to(gate.dtype)
        x, n = added(x, gate * found, self.eps)
        x, n = added(x, self.blocks.feed(n, step), self.eps)
        q, gate = self.wanted(memory, step).split([width, 1], -1)
        found = self.attend(q, self.told(n, step))
        return x, torch.lerp(found, memory, (gate + self.kept(found, step) + write).sigmoid())

    def attend(self, q: Tensor, held: Tensor) -> Tensor:
        """What queries [g, b, n, D] find among keys and values [g, b, m, 2 D]."""
        return across(q.flatten(0, 1), held.flatten(0, 1), self.heads).unflatten(0, q.shape[:2])


def by_segments(model: Feng, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
    """The logits of a whole text from the equations: no cache, one slot after the other."""
    memories, logits = [block.memory.expand(len(tokens), -1, -1) for block in model.blocks], []
    for piece in tokens.split(model.segment, 1):
        x = model.embedding(piece)
        for index, block in enumerate(model.blocks):
            x = x + row_by_row(block.mixer, block.mixer_norm(x))
            h = block.read_norm(x)
            reader = block.reader
            read = reader.out(
                torch.stack([_attended(reader, reader.query(row), memories[index]) for row in h.unbind(1)], 1)
            )
            gate = block.read_gate(torch.cat([h, read], -1)).sigmoid()
            x = x + (gate if model.told is None or model.opened() else 0 * gate) * read
            x = x + block.feed(block.feed_norm(x))
            if piece.shape[1] == model.segment:
                memories[index] = torch.stack([_written(block, m, x) for m in memories[index].unbind(1)], 1)
        logits.append(model.norm(x) @ model.embedding.weight.T)
    return torch.cat(logits, 1), None


def _attended(reader: CrossAttention, q: Tensor, rows: Tensor) -> Tensor:
    q = split_heads(q, reader.heads)
    k, v = (split_heads(part, reader.heads) for part in reader.key_value(rows).chunk(2, dim=-1))
    scores = torch.einsum("bhd,bjhd->bhj", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhj,bjhd->bhd", scores.softmax(-1), v).flatten(1)


def _written(block: MemoryBlock, slot: Tensor, x: Tensor) -> Tensor:
    found = _attended(block.reader, block.slot_query(slot), block.write_norm(x))
    kept = block.write_gate(torch.cat([slot, found], -1)).sigmoid()
    return kept * slot + (1 - kept) * found


@register(
    "feng",
    paper="Feng, Li, Song, Zheng and Koehn 2022, arXiv 2205.01546",
    equation="h <- h + g Attn(h -> M);  M <- u M + (1 - u) Attn(M -> segment), in every layer",
)
class Feng(SegmentModel):
    """A whole language model with `slots` of memory in every layer, written behind every `segment` tokens.

    `detach_every` cuts the gradient whenever that many segments have passed; None lets it pass through all. State: the layers'
    memories, the open segment's keys and values, and each layer's rows of it.
    """

    law = Law(
        "u, per slot, each segment", "-", "(1 - u) attention of slots to the layer's rows", "g softmax over slots"
    )
    reading = "A decoder with segments of a fixed length stands for document translation by sentences; the equations are ours."
    reference = staticmethod(by_segments)

    def __init__(
        self,
        size: Size,
        feed: int,
        segment: int = 64,
        slots: int = 8,
        detach_every: int | None = None,
        open_after: int = 0,
    ):
        """`open_after` optimiser steps train without the memory, as the paper's first stage does."""
        if min(segment, slots) < 1 or open_after < 0 or (detach_every is not None and detach_every < 1):
            raise ValueError(
                "Feng's memory needs segment and slots >= 1, open_after >= 0, and detach_every >= 1 (or None for no cut)."
            )
        super().__init__(size, [MemoryBlock(size.width, size.heads, feed, slots) for _ in range(size.depth)], segment)
        self.detach_every, self.detaches = detach_every, detach_every is not None
        self.open_after = open_after
        # Training steps begun, with the weights in every checkpoint; a tensor, so that no step waits to read it.
        self.register_buffer("told", torch.zeros((), dtype=torch.long) if open_after else None)

    def warm_up(self, share: float) -> None:
        """Count a training step, before which a training calls this."""
        if self.told is not None:
            self.told += 1

    def opened(self) -> Tensor | None:
        """Whether the memory is read: not in the first `open_after` steps of a training; None where there is no such stage."""
        return None if self.told is None else (self.told == 0) | (self.told > self.open_after)

    def begin(self, x: Tensor) -> State:
        return (
            tuple(block.memory.expand(len(x), -1, -1) for block in self.blocks),
            0,
            (),
            (x[:, :0],) * len(self.blocks),
        )

    def within(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.within`; behind a segment's last token all memories are written."""
        memories, read, caches, rows = state
        read, kept, after, opened = read + x.shape[1], [], [], self.opened()
        for index, block in enumerate(self.blocks):
            x, cache = block(x, memories[index], caches[index] if caches else None, opened)
            after.append(cache)
            kept.append(torch.cat([rows[index].to(x.dtype), x], 1))
        h = self.norm(x)
        if read % self.segment:
            return h, (memories, read, tuple(after), tuple(kept))
        memories = tuple(block.write(*given) for block, *given in zip(self.blocks, memories, kept, strict=True))
        if self.detach_every is not None and read == self.detach_every * self.segment:
            memories, read = tuple(memory.detach() for memory in memories), 0
        none = x[:, :0].clone()
        return h, (memories, 0 if self.detach_every is None else read, (), (none,) * len(self.blocks))

    def at_once(self, x: Tensor) -> bool:
        """`SegmentModel.at_once`: on a CPU, and unless gradients are cut."""
        return self.detach_every is None and covered(self, x)

    def several(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.several`, along diagonals: a layer's memory waits for its own layer alone."""
        pieces = x.unflatten(1, (-1, self.segment)).unbind(1)
        steps = Diagonals(len(self.blocks), len(pieces))
        h, memory = steps.run(SideBySide(self, steps, pieces[0]), pieces, torch.stack(state[0]))
        none = x[:, :0].clone()
        return self.norm(torch.cat(h, 1)), (memory.unbind(0), 0, (), (none,) * len(self.blocks))

    def flops(self, time: int) -> Flops:
        """Of attention in segments and to slots, and of the writes, the last of which no token may have heard."""
        whole, rest = divmod(time, self.segment)
        slots, width = self.blocks[0].memory.shape
        total = attention_flops(self.segment, self.segment, width).times(whole).plus(attention_flops(rest, rest, width))
        total = total.plus(attention_flops(time, slots, width)).times(len(self.blocks))
        for block in self.blocks:
            told, keys = nn.ModuleList([block.slot_query, block.write_gate]), block.reader.key_value
            write = attention_flops(slots, self.segment, width).plus(linear_flops(told, slots))
            write = write.plus(linear_flops(keys, self.segment))
            total = total.plus(
                Flops(write.times(whole).forward, write.times(max(0, -(-time // self.segment) - 1)).backward)
            )
            total = total.plus(linear_flops(keys, (whole + (rest > 0)) * slots - time)).plus(linear_flops(told, -time))
        return total
