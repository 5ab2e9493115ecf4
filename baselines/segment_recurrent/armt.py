"""Associative Recurrent Memory Transformer: in every layer memory rows write into a matrix that later segments ask.

Rodkin, Kuratov, Bulatov, Burtsev 2024, arXiv 2407.04841, Section 3, as the authors' code (RodkinIvan/associative-recurrent-
memory-transformer) has it. A segment runs as [ x_1 .. x_s | m memory rows ], the same learned rows each time. Per layer, with
phi = l2( DPFP_3( . ) ) and h the rows before, o the memory rows behind the layer:

    read     h <- h + A phi(W_q h) / (z phi(W_q h) + eps)                        all rows, from the second segment on
    write    v' = A phi(k) / (z phi(k) + eps),   gamma = clip(1 - (z phi(k) + eps) / |phi(k)|^2, 0, 1), no gradient
             A <- A + sum beta (W_v o - v') phi(k)^T,   z <- z + sum gamma phi(k),   k = W_k o,   beta = sigmoid(W_b o)

All memory rows of a segment write at once; with the first, v' = 0 and gamma = 1. DPFP_3 of x multiplies [relu(x) | relu(-x)]
with itself rolled by 1, 2 and 3 places: 6 features a number. eps = 1e-5. W_v starts at 0, the others as `nn.Linear` draws.
The memory rows decay with everything else, as in the authors' code. Gradients pass through all segments.

Deviations: the Transformer is this benchmark's reference (rotary, RMSNorm, SwiGLU), its places begin anew in each segment;
segment, memory rows and their width default to 64, 4 and 16 instead of 512, 10 to 16 and 64, for models trained on hundreds of
tokens; A, z and features are computed in float32 under autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Cache
from models.law import Law
from models.layers import at_least_float32, linear_flops
from models.ops.dense.rows import added
from models.ops.flops import Flops, attention_flops, product_flops
from models.registry import register
from models.shell.diagonals import Diagonals
from models.shell.layer_maps import LayerBlocks, LayerMap, Step, covered
from models.shell.model import Block, Size
from models.shell.segments import SegmentAttention, SegmentModel, row_by_row

EPS = 1e-5
Memory = tuple[Tensor, Tensor]  # of one layer, A [b, f, d] and z [b, f]
# Each layer's memory, none before the first was written; tokens read since a cut; each layer's cache of the open segment.
State = tuple[tuple[Memory, ...], int, tuple[Cache, ...]]


def features(x: Tensor) -> Tensor:
    """DPFP_3 of unit length, [.., n] -> [.., 6 n]."""
    x = torch.cat([x.relu(), (-x).relu()], -1)
    return F.normalize(torch.cat([x * x.roll(places, -1) for places in (1, 2, 3)], -1), dim=-1)


class AssociativeMemory(nn.Module):
    """The projections of one layer's memory, and how it is read and written."""

    def __init__(self, width: int, keys: int):
        super().__init__()
        self.query, self.key = nn.Linear(width, keys, bias=False), nn.Linear(width, keys, bias=False)
        self.value, self.rate = nn.Linear(width, width, bias=False), nn.Linear(width, 1)
        nn.init.zeros_(self.value.weight)

    def read(self, x: Tensor, memory: Memory) -> Tensor:
        """What the memory holds for rows x [b, n, d]: [b, n, d]."""
        q = self.query(x)
        with torch.autocast(x.device.type, enabled=False):
            found, _ = _recalled(features(at_least_float32(q)), memory)
        return found.to(x.dtype)

    def write(self, x: Tensor, memory: Memory | None) -> Memory:
        """The memory after rows x [b, n, d] have written."""
        k, v, rate = (at_least_float32(part(x)) for part in (self.key, self.value, self.rate))
        with torch.autocast(x.device.type, enabled=False):
            k = features(k)
            if memory is None:
                return k.mT @ (rate.sigmoid() * v), k.sum(1)
            old, share = _recalled(k, memory)
            gain = (1 - share / k.square().sum(-1, keepdim=True).clamp_min(EPS)).clamp(0, 1).detach()
            return memory[0] + k.mT @ (rate.sigmoid() * (v - old)), memory[1] + (gain * k).sum(1)


def _recalled(asked: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """A phi / (z phi + eps) for features [b, n, f]: [b, n, d], and the denominator [b, n, 1]."""
    matrix, sums = (part.to(asked.dtype) for part in memory)
    share = asked @ sums[..., None] + EPS
    return asked @ matrix / share, share


class SideBySide:
    """ARMT's layers along diagonals. Memories are [A | z], [g, b, f, d + 1], of zeros before anything was written."""

    def __init__(self, model: ARMT, diagonals: Diagonals, rows: Tensor, begun: bool):
        """`rows` [b, r, d] of one segment; `begun`: a memory was written before the first of these segments."""
        own, count = model.memories, rows.shape[0] * rows.shape[1]
        told = count - rows.shape[0] * model.segment
        self.blocks, self.begun, self.time = LayerBlocks(model.blocks, diagonals, count), begun, model.segment
        self.keys, self.like = own[0].key.out_features, rows
        self.query = LayerMap(torch.stack([one.query.weight for one in own]), diagonals, count)
        write = [torch.cat([one.key.weight, one.value.weight, one.rate.weight]) for one in own]
        self.write = LayerMap(torch.stack(write), diagonals, told)
        self.bias = torch.stack([one.rate.bias for one in own])[:, None, None]  # [L, 1, 1, 1]

    def held(self, memories: tuple[Memory, ...]) -> Tensor:
        """All layers' memories in one tensor [L, b, f, d + 1]."""
        if memories:
            return torch.stack([torch.cat([matrix, sums[..., None]], -1) for matrix, sums in memories])
        batch, _, width = self.like.shape
        return self.like.new_zeros(len(self.bias), batch, 6 * self.keys, width + 1)

    def __call__(self, x: Tensor, memory: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        found, _ = _both(features(self.query(x, step)), memory)
        x, n = added(x, found, self.blocks.eps)
        x, n = added(x, self.blocks.attend(n, step), self.blocks.eps)
        x = x + self.blocks.feed(n, step)
        return x, self.written(x[:, :, self.time :], memory, step)

    def written(self, x: Tensor, memory: Tensor, step: Step) -> Tensor:
        """The memories after rows x [g, b, n, d] have written."""
        k, v, rate = self.write(x, step).split([self.keys, x.shape[-1], 1], -1)
        k, rate = features(k), (rate + self.bias[step.first : step.stop]).sigmoid()
        old, share = _both(k, memory)
        with torch.no_grad():
            gain = (1 - share / k.square().sum(-1, keepdim=True).clamp_min(EPS)).clamp(0, 1)
            if step.begins and not self.begun:
                gain[-1] = 1
        return memory + k.mT @ torch.cat([rate * (v - old), gain], -1)


def _both(asked: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """`_recalled` of memories [A | z]."""
    found, share = (asked @ memory).split([memory.shape[-1] - 1, 1], -1)
    share = share + EPS
    return found / share, share


def by_segments(model: ARMT, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
    """The logits of a whole text from the equations: no cache, and each memory row writes by itself."""
    memories, logits = [None] * len(model.blocks), []
    for piece in tokens.split(model.segment, 1):
        x = torch.cat([model.embedding(piece), model.memory.expand(len(tokens), -1, -1)], 1)
        for index, (block, own) in enumerate(zip(model.blocks, model.memories, strict=True)):
            if memories[index] is not None:
                matrix, sums = memories[index]
                asked = features(own.query(x))
                x = x + torch.einsum("bfd,bnf->bnd", matrix, asked) / (asked @ sums[..., None] + EPS)
            x = x + row_by_row(block.mixer, block.mixer_norm(x))
            x = x + block.feed(block.feed_norm(x))
            if piece.shape[1] == model.segment:
                memories[index] = _written(own, x[:, model.segment :], memories[index])
        logits.append(model.norm(x)[:, : piece.shape[1]] @ model.embedding.weight.T)
    return torch.cat(logits, 1), None


def _written(own: AssociativeMemory, rows: Tensor, before: Memory | None) -> Memory:
    matrix, sums = (0.0, 0.0) if before is None else before
    for row in rows.unbind(1):
        k, gain, value = features(own.key(row)), 1.0, own.value(row)
        if before is not None:
            share = (before[1] * k).sum(-1, keepdim=True) + EPS
            value = value - torch.einsum("bfd,bf->bd", before[0], k) / share
            gain = (1 - share / k.square().sum(-1, keepdim=True)).clamp(0, 1).detach()
        matrix = matrix + k[:, :, None] * (own.rate(row).sigmoid() * value)[:, None]
        sums = sums + gain * k
    return matrix, sums


@register(
    "armt",
    paper="Rodkin, Kuratov, Bulatov and Burtsev 2024, arXiv 2407.04841",
    equation="h <- h + A phi(q) / z phi(q);  A <- A + beta (v - A phi(k) / z phi(k)) phi(k)^T from the memory rows",
)
class ARMT(SegmentModel):
    """A whole language model: `memory` rows behind each segment write into every layer's matrix.

    `detach_every` cuts the gradient whenever that many segments have passed (truncated backpropagation); None lets it pass
    through all. State: each layer's matrix and sums, and the open segment's keys and values.
    """

    with_weight_decay = ("memory",)
    law = Law(
        "-", "A phi(k) / z phi(k)", "beta (v - compared) phi(k)^T, from a segment's memory rows", "A phi(q) / z phi(q)"
    )
    reference = staticmethod(by_segments)

    def __init__(
        self,
        size: Size,
        feed: int,
        segment: int = 64,
        memory: int = 4,
        keys: int = 16,
        detach_every: int | None = None,
    ):
        """`keys` is the width of memory keys before their features, six times as many."""
        if min(segment, memory, keys) < 1 or (detach_every is not None and detach_every < 1):
            raise ValueError("ARMT needs segment, memory and keys >= 1, and detach_every >= 1 (or None for no cut).")
        blocks = [Block(size.width, SegmentAttention(size.width, size.heads), feed) for _ in range(size.depth)]
        super().__init__(size, blocks, segment)
        self.memories = nn.ModuleList(AssociativeMemory(size.width, keys) for _ in blocks)
        self.memory = nn.Parameter(torch.randn(memory, size.width) * 0.02)  # as the embedding
        self.detach_every, self.detaches = detach_every, detach_every is not None

    def begin(self, x: Tensor) -> State:
        return (), 0, ()

    def within(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.within`; the memory rows run with a segment's last token."""
        memories, read, caches = state
        time, read = x.shape[1], read + x.shape[1]
        ends = read % self.segment == 0
        rows = torch.cat([x, self.memory.to(x.dtype).expand(len(x), -1, -1)], 1) if ends else x
        after, written = [], []
        for index, (block, own) in enumerate(zip(self.blocks, self.memories, strict=True)):
            memory = memories[index] if memories else None
            if memory is not None:
                rows = rows + own.read(rows, memory)
            rows, cache = block(rows, caches[index] if caches else None)
            after.append(cache)
            if ends:
                written.append(own.write(rows[:, time:], memory))
        h = self.norm(rows[:, :time])
        if not ends:
            return h, (memories, read, tuple(after))
        if self.detach_every is not None and read == self.detach_every * self.segment:
            written, read = [(matrix.detach(), sums.detach()) for matrix, sums in written], 0
        return h, (tuple(written), 0 if self.detach_every is None else read, ())

    def at_once(self, x: Tensor) -> bool:
        """`SegmentModel.at_once`: on a CPU, and unless gradients are cut."""
        return self.detach_every is None and covered(self, x)

    def several(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.several`, along diagonals: a layer's memory waits for its own layer alone."""
        memories = state[0]
        pieces = x.unflatten(1, (-1, self.segment))
        own = self.memory.to(x.dtype).expand(*pieces.shape[:2], -1, -1)
        pieces = torch.cat([pieces, own], 2).unbind(1)
        steps = Diagonals(len(self.blocks), len(pieces))
        side = SideBySide(self, steps, pieces[0], bool(memories))
        h, memory = steps.run(side, pieces, side.held(memories))
        h = self.norm(torch.stack(h, 1)[:, :, : self.segment]).flatten(1, 2)
        return h, (tuple((one[..., :-1], one[..., -1]) for one in memory.unbind(0)), 0, ())

    def flops(self, time: int) -> Flops:
        """Of attention in segments, of the memory rows in everything else, and of what the memories are asked and told."""
        whole, rest = divmod(time, self.segment)
        memory, width = self.memory.shape
        rows = self.segment + memory
        total = attention_flops(rows, rows, width).times(whole).plus(attention_flops(rest, rest, width))
        total = total.times(len(self.blocks)).plus(linear_flops(self.blocks, memory * whole))
        asking, telling = max(0, whole - 1) * rows + rest * (whole > 0), whole * memory
        sums = 6 * self.memories[0].key.out_features  # features
        products = (asking + max(0, whole - 1) * memory) * (width + 1) + telling * width
        total = total.plus(product_flops(products * sums * len(self.blocks)))
        for own in self.memories:
            total = total.plus(linear_flops(own.query, asking - time))
            total = total.plus(linear_flops(nn.ModuleList([own.key, own.value, own.rate]), telling - time))
        return total
