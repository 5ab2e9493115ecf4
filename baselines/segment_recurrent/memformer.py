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
from models.ops.flops import Flops, attention_flops
from models.ops.segment_layers.native import Plan, covers, read_segments
from models.registry import register
from models.shell.layer_maps import covered
from models.shell.model import Block, Size
from models.shell.segment_layers import in_segments, joined, layer_of
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
        """`SegmentModel.at_once`: where all layers of a segment are one compiled call, and unless gradients are cut."""
        longest = max(self.segment, self.writer.bias.shape[0])
        return self.detach_every is None and covered(self, x) and covers(x, self.size.heads, longest)

    def several(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.several`: one after the other."""
        plan = Plan(
            self.size.heads, self.norm.eps, True, lambda slots, unit: self.writer(slots, unit * self.norm.weight)
        )
        layers = [layer_of(block, block.read_norm.weight, block.reader) for block in self.blocks]
        carried = [*self.writer.parameters(), self.norm.weight]
        units, slots = read_segments(in_segments(x, self.segment), state[0].to(x.dtype), layers, plan, carried)
        return joined(units) * self.norm.weight, (slots, 0, (), x[:, :0].clone())

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
