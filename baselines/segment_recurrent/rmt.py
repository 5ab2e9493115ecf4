"""Recurrent Memory Transformer: memory tokens carry what one segment of the text leaves for the next.

Bulatov, Kuratov, Burtsev 2022, arXiv 2207.06881, Section 3.2, in BABILong's setting (Kuratov et al. 2024, arXiv 2406.10149):

    [ _ | H | M' ] = Transformer( [ M | x_1 .. x_s | M ] ),   M <- M',   logits = E H

The same memory stands at both ends of a segment, under a plain causal mask: the read rows in front are causal among
themselves, tokens see them and earlier tokens, the write rows behind see everything. M' are the write rows after the last
norm. Gradients pass through all segments. Positions start anew in each segment.

The memory tokens decay with everything else, as in the authors' code, which gives all parameters one weight decay.

Deviation: the Transformer is this benchmark's reference (rotary, RMSNorm, SwiGLU), not GPT-2 or Transformer-XL; segment
and memory default to 64 and 8 instead of 512 and 16 (BABILong), for models trained on hundreds of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention import Cache
from models.law import Law
from models.layers import linear_flops
from models.ops.flops import Flops, attention_flops
from models.ops.segment_layers.native import Plan, covers, read_segments
from models.ops.softmax_attention import softmax_attention
from models.registry import register
from models.shell.layer_maps import covered
from models.shell.model import Block, Size
from models.shell.segment_layers import in_segments, joined, layer_of
from models.shell.segments import SegmentAttention, SegmentModel

State = tuple[Tensor, int, tuple[Cache, ...]]  # memory [b, m, d], tokens read since, each layer's cache of the segment


@register(
    "rmt",
    paper="Bulatov, Kuratov and Burtsev 2022, arXiv 2207.06881",
    equation="[_ | H | M'] = Transformer([M | segment | M]);  M <- M'",
)
class RMT(SegmentModel):
    """A whole language model: `memory` rows are carried over segments of `segment` tokens.

    The write rows run with a segment's last token. `detach_every` cuts the gradient of the memory whenever that many
    segments have passed (truncated backpropagation); None lets it pass through all. State: the memory [b, m, d], the tokens
    read since it was written, and the open segment's keys and values, so it is bounded by one segment.
    """

    law = Law(
        forget="the last M, once a segment",
        compare="-",
        write="the rows behind the segment, as M",
        read="attention to [M | segment]",
    )
    with_weight_decay = ("memory",)
    providers = tuple(softmax_attention.forms)

    def __init__(
        self,
        size: Size,
        feed: int,
        segment: int = 64,
        memory: int = 8,
        detach_every: int | None = None,
        provider: str = "auto",
    ):
        if segment < 1 or memory < 1 or (detach_every is not None and detach_every < 1):
            raise ValueError("RMT needs segment >= 1, memory >= 1 and detach_every >= 1 (or None for no cut).")
        blocks = [
            Block(size.width, SegmentAttention(size.width, size.heads, provider), feed) for _ in range(size.depth)
        ]
        super().__init__(size, blocks, segment)
        self.detach_every = detach_every
        self.detaches = detach_every is not None
        self.memory = nn.Parameter(torch.randn(memory, size.width) * 0.02)  # as the embedding

    def begin(self, x: Tensor) -> State:
        return self.memory.repeat(len(x), 1, 1), 0, ()

    def flops(self, time: int) -> Flops:
        """Of attention in segments, and of the memory rows in everything else; an open segment has no write rows."""
        whole, rest = divmod(time, self.segment)
        memory, width = self.memory.shape
        total = attention_flops(self.segment + 2 * memory, self.segment + 2 * memory, width).times(whole)
        rows = 2 * memory * whole
        if rest:
            total, rows = total.plus(attention_flops(rest + memory, rest + memory, width)), rows + memory
        return total.times(len(self.blocks)).plus(linear_flops(self.blocks, rows))

    def within(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.within`; behind a segment's last token the memory is written."""
        memory, read, caches = state
        time, read = x.shape[1], read + x.shape[1]
        begins, ends = not caches, read % self.segment == 0
        rows = torch.cat([memory] * begins + [x] + [memory] * ends, dim=1)
        after = []
        for index, block in enumerate(self.blocks):
            rows, cache = block(rows, caches[index] if caches else None)
            after.append(cache)
        rows = self.norm(rows)
        front = memory.shape[1] * begins
        h = rows[:, front : front + time]
        if not ends:
            return h, (memory, read, tuple(after))
        memory = rows[:, front + time :].clone()
        if self.detach_every is not None and read == self.detach_every * self.segment:
            memory, read = memory.detach(), 0
        return h, (memory, 0 if self.detach_every is None else read, ())

    def at_once(self, x: Tensor) -> bool:
        """`SegmentModel.at_once`: where a segment is one compiled call, unless gradients are cut or a provider is asked for."""
        longest = self.segment + 2 * self.memory.shape[0]
        own = self.detach_every is None and self.blocks[0].mixer.provider == "auto"
        return own and covered(self, x) and covers(x, self.size.heads, longest)

    def several(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`SegmentModel.several`: one after the other."""
        front, layers = self.memory.shape[0], [layer_of(block) for block in self.blocks]
        plan = Plan(self.size.heads, self.norm.eps, False, lambda _, unit: unit[:, -front:] * self.norm.weight)
        pieces = in_segments(x, self.segment)
        units, memory = read_segments(pieces, state[0], layers, plan, [self.norm.weight])
        return joined(units[:, :, front:-front]) * self.norm.weight, (memory, 0, ())
