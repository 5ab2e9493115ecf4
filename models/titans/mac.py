"""Titans with memory as context (MAC; Behrouz et al. 2025, arXiv 2501.00663, eqs. 21-25), in the paper's order and causal.

Per segment S of the text, with M the memory before it:

    retrieve   h = M*(S W_Q)                                   one row per token, from weights that stay as they are
    attend     y = S + Attn([P | h | S])                       token i sees P, and of h and S the rows up to its own
    update     M_i = M_{i-1}(y_i)                              the memory learns what attention made of the segment
    gate       o_i = RMSNorm_a(y_i) * sigma(RMSNorm_b(M_i*(y_i)))     each token reads the memory of its own prefix

The residual connection around attention is one of those that the paper's equations leave out (section 4.4): without it the memory
is told of a token only what attention makes of it. `inner_residual=False` is the equation to the letter.

With `memory_tokens=n` a segment has n rows of h: consecutive queries are pooled (their mean, of unit length again), and a row is
visible only from its last query's token on. Read literally the paper leaks twice: a token sees rows of h that later tokens asked
for, and its gate reads the memory written by the whole segment. Neither happens here unless `literal=True` asks for it
(`docs/titans.md`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import l2_norm, linear_flops, maps, rotary, split_heads
from models.layers.derived import Derived
from models.ops.flops import Flops, attention_flops, product_flops
from models.ops.memory_as_context.native import Form
from models.ops.neural_memory.recurrence import Weights
from models.ops.providers import NotCovered, is_compiled, note
from models.ops.softmax_attention.native import attend
from models.registry import register
from models.shell.segments import cut
from models.titans.compiled_segments import attended_segments, form_of, heard, is_slower
from models.titans.memory_layer import (
    Gating,
    HeadNorm,
    Memory,
    MemoryState,
    convolution_of,
    inner_width,
    output_projection,
    persistent_tokens,
)
from models.titans.memory_settings import MemorySettings

# The memory; its weights before the open segment; of that segment the keys and values of h and of S, [b, n, h, d], the queries
# that wait to be pooled, and how many tokens it has.
Opened = tuple[MemoryState | None, Weights, tuple[Tensor, ...], Tensor, int]
# Before these, the convolution tails of attention and of retrieval.
State = tuple[Tensor, Tensor, MemoryState, Weights, tuple[Tensor, ...], Tensor, int]


@register(
    "titans-mac",
    paper="Behrouz, Zhong and Mirrokni 2024, arXiv 2501.00663",
    equation="h = M(q);  y = Attn([P | h | S]);  M <- M(y);  o = norm(y) * sigma(norm(M(y)))",
)
class TitansMAC(nn.Module):
    """Attention within segments over persistent tokens, what the memory recalls, and the segment."""

    law = Law(
        forget="1 - alpha, per head, from x",
        compare="M(k) - v",
        write="S = eta S - theta grad |M(k) - v|^2, of y",
        read="y = Attn([P | M(q) | segment]), gated by M(y)",
    )
    reading = "causal: no token sees what later ones ask of the memory or write into it; ranges of rates and gates"
    fixed_state = True
    with_weight_decay = ("persistent",)  # the paper is silent; RMT's code decays its memory tokens

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        segment: int = 64,
        persistent: int = 4,
        memory_tokens: int | None = None,
        literal: bool = False,
        inner_residual: bool = True,
        memory: MemorySettings = MemorySettings(),
        provider: str = "auto",
    ):
        super().__init__()
        inner = inner_width(width, heads, inner)
        if segment < 1 or segment % memory.chunk:
            raise ValueError(
                f"A segment of {segment} tokens must be made of whole chunks; make it a multiple of {memory.chunk}."
            )
        memory_tokens = segment if memory_tokens is None else memory_tokens
        if memory_tokens < 1 or segment % memory_tokens:
            raise ValueError(
                f"memory_tokens must divide the segment of {segment} tokens evenly, which {memory_tokens} does not."
            )
        if inner % (2 * heads):
            raise ValueError(f"Rotary positions need an even width per head: make {inner} a multiple of {2 * heads}.")
        self.heads, self.period, self.segment = heads, segment, segment
        self.pool, self.literal, self.inner_residual = segment // memory_tokens, literal, inner_residual
        self.persistent, self._before, self.provider = persistent_tokens(persistent, width), Derived(), provider
        self.memory = Memory(width, heads, inner, memory, provider)
        self.recall_norm = HeadNorm(heads, inner, provider)
        self.recall_out = output_projection(inner, width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.conv = convolution_of(3 * inner, memory.convolution, provider)
        self.attention_out = output_projection(inner, width)
        self.gating = Gating(width, provider)
        self.out = output_projection(width, width)
        for projection in (self.query, self.key_value):
            nn.init.normal_(projection.weight, std=width**-0.5)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        tail, query_tail, *opened = self._begin(x) if state is None else state
        time, closing = x.shape[1], min(-opened[-1] % self.segment, x.shape[1])  # tokens that close the open segment
        whole = (time - closing) // self.segment * self.segment
        form = self._compiled(x) if whole else None
        if form is None:
            asked, query_tail = self.memory.queries(x, query_tail)
            qkv, tail = self.conv(torch.cat(maps(x, self.query, self.key_value, provider=self.provider), -1), tail)
            y, read, opened = self._segment_by_segment(x, asked, qkv, tuple(opened))
        else:
            text, (query_tail, tail) = heard(self, x, (query_tail, tail))
            y, read, opened = self._in_pieces(x, text, form, [closing, whole, time - closing - whole], tuple(opened))
        memory, weights, rows, waiting, count = opened
        o = self.out(self.gating(y, read))
        return o, (tail, query_tail, memory, weights, tuple(part.clone() for part in rows), waiting.clone(), count)

    def _in_pieces(
        self, x: Tensor, text: Tensor, form: Form, lengths: list[int], opened: Opened
    ) -> tuple[Tensor, Tensor, Opened]:
        """`_segment_by_segment` with whole segments compiled: of three lengths the second, or all there is.

        `text` is what `compiled_segments.heard` makes of x.
        """
        if lengths[1] == x.shape[1]:
            y, read, memory = attended_segments(self, form, x, text, opened[0])
            return y, read, (memory, memory[2][0], *opened[2:])
        found = []
        for place, (own, part) in enumerate(zip(x.split(lengths, 1), text.split(lengths, 1), strict=True)):
            if place == 1:
                y, read, memory = attended_segments(self, form, own, part, opened[0])
                opened = memory, memory[2][0], *opened[2:]
            elif lengths[place]:
                asked, qkv = part.split([part.shape[-1] // 4, part.shape[-1] // 4 * 3], -1)
                asked = l2_norm(split_heads(F.silu(asked), self.heads))
                y, read, opened = self._segment_by_segment(own, asked, qkv, opened)
            else:
                continue
            found.append((y, read))
        return *(torch.cat(parts, 1) for parts in zip(*found, strict=True)), opened

    def _compiled(self, x: Tensor) -> Form | None:
        """How whole segments are compiled; None where they are left to PyTorch. Raises NotCovered if `native` was asked for."""
        if not is_compiled(self.provider, x):
            return None
        try:
            form = form_of(self, x)
        except NotCovered:
            if self.provider == "native":
                raise
            return None
        return None if self.provider == "auto" and is_slower(self, x) else form

    def _segment_by_segment(
        self, x: Tensor, asked: Tensor, qkv: Tensor, opened: Opened
    ) -> tuple[Tensor, Tensor, Opened]:
        """y and what tokens read, as rows, [b, t, width], and the open segment behind x; in PyTorch, which runs everywhere.

        `asked` are the memory's queries [b, t, h, d], qkv attention's q, k and v [b, t, 3 h d].
        """
        note("sdpa")
        memory, weights, rows, waiting, count = opened
        own = [split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1)]
        prefix = self._persistent(x.shape[0])
        ys, reads = [], []
        for inputs, queries, *parts in zip(*(cut(part, count, self.segment) for part in (x, asked, *own)), strict=True):
            pooled, waiting = self._pool(queries, waiting)
            recalled = self._lift(self.memory.retrieve(weights, pooled))
            y, rows = self._attend(parts, recalled, prefix, rows, count)
            y = inputs + y if self.inner_residual else y
            read, memory = self._update(y, memory)
            ys.append(y)
            reads.append(read)
            count = rows[-1].shape[1]
            if count == self.segment:
                weights, rows, count = self.memory.weights(memory, y.shape[0]), tuple(part[:, :0] for part in rows), 0
        return torch.cat(ys, 1), self._lift(torch.cat(reads, 1)), (memory, weights, rows, waiting, count)

    def _begin(self, x: Tensor) -> tuple:
        """The state before a text: nothing but the learned memory and a segment without tokens."""
        none = x.new_zeros(x.shape[0], 0, self.heads, self.recall_norm.gain.numel() // self.heads)
        return None, None, None, self.memory.weights(None, x.shape[0]), (none,) * 4, none, 0

    def _pool(self, asked: Tensor, waiting: Tensor) -> tuple[Tensor, Tensor]:
        """One query per memory token that is complete, and the queries that wait for more."""
        if self.pool == 1:
            return asked, waiting
        asked = torch.cat([waiting.to(asked.dtype), asked], 1)
        whole = asked.shape[1] // self.pool * self.pool
        return l2_norm(asked[:, :whole].unflatten(1, (-1, self.pool)).mean(2)), asked[:, whole:]

    def _update(self, y: Tensor, memory: MemoryState | None) -> tuple[Tensor, MemoryState]:
        """What the gates read, [b, t, h, d], and the memory after y: each token from its own prefix.

        Literally, every token from the memory after them all, as it stands at its last anchor.
        """
        read, after = self.memory(y, memory)
        if self.literal:
            q, _ = self.memory.queries(y, None if memory is None else memory[0])
            read = self.memory.retrieve(self.memory.weights(after, y.shape[0]), q)
        return read, after

    def _persistent(self, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the persistent tokens, for every row of a batch; their places begin every segment."""
        found = self._before(self._prefix, self.persistent, self.key_value.weight)
        return tuple(part.expand(rows, -1, -1, -1) for part in found)

    def _prefix(self, persistent: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self._context(persistent[None])
        return rotary(k, 0), v

    def _context(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of P or h, [b, n, width]. No convolution: it would carry later rows into earlier tokens."""
        (key_value,) = maps(rows, self.key_value, provider=self.provider)
        return tuple(split_heads(part, self.heads) for part in key_value.chunk(2, dim=-1))

    def _lift(self, recalled: Tensor) -> Tensor:
        """What the memory answered, [b, t, h, d], as rows of the model's width."""
        return maps(self.recall_norm(recalled), self.recall_out, provider=self.provider)[0]

    def flops(self, time: int) -> Flops:
        """Of attention in segments, and of what a token passes twice or what passes beside the tokens: queries, h and P."""
        whole, rest = divmod(time, self.segment)
        rows = len(self.persistent) + self.segment // self.pool + self.segment
        last = len(self.persistent) + rest // self.pool + rest
        inner = self.query.out_features
        total = attention_flops(self.segment, rows, inner).times(whole).plus(attention_flops(rest, last, inner))
        asked, recalled = time * (2 if self.literal else 1), time // self.pool + (time if self.literal else 0)
        for layer, count in (
            (self.memory.query, asked),
            (self.memory.query_conv, asked),
            (self.recall_out, time // self.pool),
            (self.key_value, time // self.pool + len(self.persistent)),
        ):
            total = total.plus(linear_flops(layer, count))
        return total.plus(product_flops(recalled * sum(weight.numel() for weight in self.memory.initial)))

    def _attend(
        self, own: list[Tensor], recalled: Tensor, prefix: tuple[Tensor, Tensor], rows: tuple[Tensor, ...], count: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attention of tokens from place `count` of the segment on, over P and the rows of h and S up to their own.

        `own` are their q, k and v; returns y [b, t, width] and the keys and values of all the segment's rows.
        """
        q, k, v = own
        recalled_k, recalled_v = self._context(recalled)
        first, old = len(self.persistent), rows[0].shape[1]
        turned = rotary(torch.cat([q, k], 2), first + count)
        q, k = turned.split(self.heads, 2)
        recalled_k = rotary(recalled_k, first + (old + 1) * self.pool - 1, step=self.pool)
        new = recalled_k, recalled_v, k, v
        rows = tuple(torch.cat([a.to(b.dtype), b], 1) for a, b in zip(rows, new, strict=True)) if count else new
        if (y := attend([(q, *prefix), (q, *rows[:2]), (q, *rows[2:])])) is not None:
            return self._attended(y), rows  # one token sees all rows that there are
        keys, values = (torch.cat(parts, 1).transpose(1, 2) for parts in zip(prefix, rows[:2], rows[2:], strict=True))
        mask = self._visible(count, *(part.shape[1] for part in (q, rows[0], rows[2])))
        y = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=mask.to(q.device))
        return self._attended(y.transpose(1, 2)), rows

    def _attended(self, y: Tensor) -> Tensor:
        return maps(y.flatten(2), self.attention_out, provider=self.provider)[0]

    def _visible(self, count: int, tokens: int, recalled: int, rows: int) -> Tensor:
        """Which of P, h and S each of the tokens from place `count` on sees, [tokens, P + recalled + rows]."""
        place = torch.arange(count, count + tokens)[:, None]
        of_recalled = place >= torch.arange(1, recalled + 1) * self.pool - 1
        if self.literal:
            of_recalled = torch.ones_like(of_recalled)
        prefix = torch.ones(tokens, len(self.persistent), dtype=torch.bool)
        return torch.cat([prefix, of_recalled, place >= torch.arange(rows)], 1)
