"""Memformer: memory slots that every layer reads, and that attend to a segment when it is over.

Wu, Lan, Qian, Gu, Geramifard, Yu 2020, arXiv 2010.06891, Section 3: slots M, read by cross attention, written by

    A = softmax( [ q_i k_i | q_i K^T ] / (sqrt(d) tau) ),   q_i = W_q m_i,  k_i = W_k m_i,  K = W_k X     X: a segment's last rows
    m_i' = m_i + W_o A [ W_v m_i ; W_v X ],   m_i <- (m_i' + v_i) / |m_i' + v_i|                           from m_i = v_i / |v_i|

Slots attend to their own key and to the tokens, not to one another; the bias v_i, learned, makes them forget ("biased memory
normalisation"). tau < 1 sharpens. The paper's replay of segments (MRBP) saves memory and changes no gradient: all segments are
differentiated here. Slots begin N(0, 1 / width), distinct, or they would stay alike. They decay, as the memory of the others.

Reading: the paper has an encoder that sees a whole segment, and a decoder. Here a decoder alone reads: causal attention inside
the segment, then a cross attention to the slots that the segments before have left, then SwiGLU. The residual connection at the
write, tau = 0.25 and X as the rows behind the last norm are ours too.

`write="gate"` is how the authors' MemBART (qywu/memformers) writes: slots begin a segment as LN(M + v), M = 0 before a text, and
pass layers of their own, each attention as above with tau = 1 and a network, both under a LayerNorm behind them; then

    alpha = sigmoid(w_a s + b_a),   M <- alpha s + (1 - alpha) LN(M + v)         s: the slots behind the layers

There slots are rows in every layer of the encoder; here their layers (`stack`, one by default, with a network of half the width
instead of 4 times it, and no hidden layer in the gate, or small models could not be matched) run when the segment is over.

Deviations: rotary places from a segment's beginning, RMSNorm and SwiGLU as everywhere here; slots and segment default to 16 and
64 instead of 1,024 and 128, for models trained on hundreds of tokens; the normalisation is computed in float32 under autocast.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from baselines.segment_recurrent.slot_writers import GatedWriter, SlotAttention, SlotWriter
from models.attention import Cache
from models.law import Law
from models.layers import RMSNorm, linear_flops, split_heads
from models.ops.dense.rows import added, unit
from models.ops.flops import Flops, attention_flops
from models.ops.softmax_attention.segment import across
from models.registry import register
from models.shell.layer_maps import LayerBlocks, LayerMap, Step, Steps, covered, folded
from models.shell.model import Block, Size
from models.shell.segments import CrossAttention, SegmentAttention, SegmentModel, row_by_row

# Slots [b, k, D]; tokens read since a cut; each layer's cache of the open segment and its last rows [b, c, D].
State = tuple[Tensor, int, tuple[Cache, ...], Tensor]


class ReadingBlock(Block):
    """A layer of the shell with a cross attention to memory slots between attention and SwiGLU."""

    def __init__(self, width: int, heads: int, feed: int):
        super().__init__(width, SegmentAttention(width, heads), feed)
        self.read_norm, self.reader = RMSNorm(width), CrossAttention(width, heads)

    def forward(self, x: Tensor, slots: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        y, cache = self.mixer(self.mixer_norm(x), cache)
        return self.rest(x + y, slots), cache

    def rest(self, x: Tensor, slots: Tensor) -> Tensor:
        """What stands behind the attention inside the segment."""
        x = x + self.reader(self.read_norm(x), slots)
        return x + self.feed(self.feed_norm(x))


class InTurn:
    """The layers of whole segments, one after the other, the gradient of each weight asked for once."""

    def __init__(self, model: Memformer, rows: Tensor, segments: int):
        """`rows` [b, t, D] of one segment."""
        blocks, (batch, time, _) = model.blocks, rows.shape
        steps = Steps(len(blocks), segments)
        self.steps, self.blocks = steps.all, LayerBlocks(blocks, steps, batch * time)
        self.depth, self.heads, self.eps = len(blocks), blocks[0].reader.heads, blocks[0].read_norm.eps
        queries = torch.stack([folded([block.reader.query], block.read_norm) for block in blocks])
        self.query = LayerMap(queries, steps, batch * time)
        self.out = LayerMap(torch.stack([block.reader.out.weight for block in blocks]), steps, batch * time)
        self.gain = model.norm.weight
        keys = torch.cat([block.reader.key_value.weight for block in blocks])
        self.held = LayerMap(keys[None], Steps(1, segments), batch * model.writer.bias.shape[0])

    def __call__(self, x: Tensor, slots: Tensor, number: int) -> Tensor:
        """Rows x [b, t, D] of the `number`-th segment behind the last norm; all layers read slots [b, k, D]."""
        held = self.held(slots[None], Step(number, 0, 1, False))[0].chunk(self.depth, -1)
        x, n = x[None], unit(x[None], self.eps)
        for step, own in zip(self.steps[number * self.depth :], held, strict=False):
            x, n = added(x, self.blocks.attend(n, step), self.eps)
            found = across(self.query(n, step)[0], own, self.heads)
            x, n = added(x, self.out(found[None], step), self.eps)
            x, n = added(x, self.blocks.feed(n, step), self.eps)
        return n[0] * self.gain


def by_segments(model: Memformer, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
    """The logits of a whole text from the equations: no cache, one slot after the other."""
    slots, logits = model.writer.first(len(tokens)), []
    for piece in tokens.split(model.segment, 1):
        x = model.embedding(piece)
        for block in model.blocks:
            x = x + row_by_row(block.mixer, block.mixer_norm(x))
            x = block.rest(x, slots)
        x = model.norm(x)
        logits.append(x @ model.embedding.weight.T)
        if piece.shape[1] == model.segment:
            slots = torch.stack([_written(model.writer, slots[:, i], i, x) for i in range(slots.shape[1])], 1)
    return torch.cat(logits, 1), None


def _written(writer: SlotWriter | GatedWriter, slot: Tensor, index: int, x: Tensor) -> Tensor:
    if isinstance(writer, SlotWriter):
        slot = slot + _found(writer, slot, x) + writer.bias[index]
        return slot / slot.square().sum(-1, keepdim=True).sqrt()
    new = slot
    for layer in writer.layers:
        new = layer.attention_norm(new + _found(layer, new, x))
        new = layer.feed_norm(new + layer.down(torch.nn.functional.gelu(layer.up(new))))
    taken = writer.gate(new).sigmoid()
    return writer.norm(taken * new + (1 - taken) * slot + writer.bias[index])


def _found(layer: SlotAttention, slot: Tensor, x: Tensor) -> Tensor:
    seen = torch.cat([slot[:, None], x], 1)
    q = split_heads(layer.query(slot), layer.heads)
    k, v = (split_heads(part, layer.heads) for part in layer.key_value(seen).chunk(2, dim=-1))
    scores = torch.einsum("bhd,bjhd->bhj", q, k) / q.shape[-1] ** 0.5 / layer.temperature
    return layer.out(torch.einsum("bhj,bjhd->bhd", scores.softmax(-1), v).flatten(1))


@register(
    "memformer",
    paper="Wu, Lan, Qian, Gu, Geramifard and Yu 2020, arXiv 2010.06891",
    equation="h <- h + Attn(h -> M);  M' = M + Attn(M -> [m ; segment]);  m <- (m' + v) / |m' + v|",
)
class Memformer(SegmentModel):
    """A whole language model with `slots` of memory, written behind every `segment` tokens.

    `detach_every` cuts the gradient whenever that many segments have passed; None lets it pass through all. State: the slots,
    the open segment's keys and values, and its last rows.
    """

    law = Law(
        "v, then unit length",
        "-",
        "attention of each slot to itself and the segment",
        "softmax over slots, in every layer",
    )
    reading = (
        "A decoder that reads the slots of earlier segments stands for the paper's encoder, which sees a whole segment."
    )
    reference = staticmethod(by_segments)

    def __init__(
        self,
        size: Size,
        feed: int,
        segment: int = 64,
        slots: int = 16,
        temperature: float = 0.25,
        detach_every: int | None = None,
        write: Literal["attention", "gate"] = "attention",
        stack: int = 1,
    ):
        """`write` is the paper's attention, sharpened by `temperature`, or MemBART's `stack` of slot layers and its gate."""
        if min(segment, slots, stack) < 1 or temperature <= 0 or (detach_every is not None and detach_every < 1):
            raise ValueError(
                "Memformer needs segment, slots and stack >= 1, temperature > 0, detach_every >= 1 (or None for no cut)."
            )
        super().__init__(size, [ReadingBlock(size.width, size.heads, feed) for _ in range(size.depth)], segment)
        if write == "gate":
            self.writer = GatedWriter(size.width, size.heads, slots, stack)
        else:
            self.writer = SlotWriter(size.width, size.heads, slots, temperature)
        self.detach_every, self.detaches = detach_every, detach_every is not None

    def begin(self, x: Tensor) -> State:
        return self.writer.first(len(x)), 0, (), x[:, :0]

    def within(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.within`; behind a segment's last token the slots are written."""
        slots, read, caches, rows = state
        read, after = read + x.shape[1], []
        for index, block in enumerate(self.blocks):
            x, cache = block(x, slots, caches[index] if caches else None)
            after.append(cache)
        x = self.norm(x)
        rows = torch.cat([rows.to(x.dtype), x], 1)
        if read % self.segment:
            return x, (slots, read, tuple(after), rows)
        slots = self.writer(slots, rows)
        if self.detach_every is not None and read == self.detach_every * self.segment:
            slots, read = slots.detach(), 0
        return x, (slots, 0 if self.detach_every is None else read, (), x[:, :0].clone())

    def at_once(self, x: Tensor) -> bool:
        """`SegmentModel.at_once`: on a CPU, and unless gradients are cut."""
        return self.detach_every is None and covered(self, x)

    def several(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.several`: one after the other, but for the gradients of weights."""
        slots, pieces, h = state[0], x.unflatten(1, (-1, self.segment)).unbind(1), []
        layers = InTurn(self, pieces[0], len(pieces))
        for number, piece in enumerate(pieces):
            h.append(layers(piece, slots, number))
            slots = self.writer(slots, h[-1])
        return torch.cat(h, 1), (slots, 0, (), x[:, :0].clone())

    def flops(self, time: int) -> Flops:
        """Of attention in segments and to slots, and of the writes, the last of which no token may have heard."""
        whole, rest = divmod(time, self.segment)
        slots, width = self.writer.bias.shape
        total = attention_flops(self.segment, self.segment, width).times(whole).plus(attention_flops(rest, rest, width))
        total = total.plus(attention_flops(time, slots, width)).times(len(self.blocks))
        for block in self.blocks:
            total = total.plus(linear_flops(block.reader.key_value, (whole + (rest > 0)) * slots - time))
        write = self.writer.cost(slots, self.segment)
        total = total.plus(
            Flops(write.times(whole).forward, write.times(max(0, -(-time // self.segment) - 1)).backward)
        )
        return total.plus(linear_flops(self.writer, -time))
