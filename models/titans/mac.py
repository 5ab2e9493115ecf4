"""Titans with memory as context (MAC; Behrouz et al. 2025, arXiv 2501.00663, eqs. 21-25), in the paper's order and causal.

Per segment S of the text, with M the memory before it:

    retrieve   h = M*(S W_Q)                                   one row per token, from weights that stay as they are
    attend     y = Attn([P | h | S])                           token i sees P, and of h and S the rows up to its own
    update     M_i = M_{i-1}(y_i)                              the memory learns what attention made of the segment
    gate       o_i = RMSNorm_a(y_i) * sigma(RMSNorm_b(M_i*(y_i)))     each token reads the memory of its own prefix

Read literally the paper leaks twice: a token sees rows of h that later tokens asked for, and its gate reads the memory written
by the whole segment. Neither happens here (`docs/titans.md`).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels import note
from models.layers import ShortConvolution, rotary, split_heads
from models.neural_memory import Rule, Weights
from models.registry import register
from models.titans.memory_layer import (
    Gating,
    HeadNorm,
    Memory,
    MemoryState,
    inner_width,
    output_projection,
    persistent_tokens,
)

# Convolution tails of attention and retrieval; the memory; its weights before the open segment; the keys and the values of the
# open segment's pairs (h_j, S_j), [b, n, 2, h, d]; how many tokens it has.
State = tuple[Tensor, Tensor, MemoryState, Weights, tuple[Tensor, ...], int]


@register(
    "titans-mac",
    paper="Behrouz et al. 2025, arXiv 2501.00663",
    equation="h = M(q);  y = Attn([P | h | S]);  M <- M(y);  o = norm(y) * sigma(norm(M(y)))",
)
class TitansMAC(nn.Module):
    """Attention within segments over persistent tokens, what the memory recalls, and the segment."""

    fixed_state = True

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        segment: int = 64,
        persistent: int = 4,
        memory_depth: int = 2,
        expansion: int = 1,
        chunk: int = 16,
        activation: Literal["gelu", "silu"] = "gelu",
        residual: bool = False,
        exclusive: bool = False,
        decayed: bool = False,
        rate_bound: float | None = None,
        unit_values: bool = True,
        layer_gates: bool = False,
        forget: Literal["head", "channel"] = "head",
        provider: str = "auto",
    ):
        super().__init__()
        inner = inner_width(width, heads, inner)
        if segment < 1 or segment % chunk:
            raise ValueError(
                f"A segment of {segment} tokens must be made of whole chunks; make it a multiple of {chunk}."
            )
        if inner % (2 * heads):
            raise ValueError(f"Rotary positions need an even width per head: make {inner} a multiple of {2 * heads}.")
        rule = Rule(chunk, activation, residual, decayed, exclusive)
        self.heads, self.period, self.segment = heads, segment, segment
        self.persistent = persistent_tokens(persistent, width)
        self.memory = Memory(
            width, heads, inner, memory_depth, expansion, rule, rate_bound, unit_values, layer_gates, forget, provider
        )
        self.recall_norm = HeadNorm(heads, inner)
        self.recall_out = output_projection(inner, width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.conv = ShortConvolution(3 * inner)
        self.attention_out = output_projection(inner, width)
        self.gating = Gating(width)
        self.out = output_projection(width, width)
        for projection in (self.query, self.key_value):
            nn.init.normal_(projection.weight, std=width**-0.5)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        if state is None:
            state = None, None, None, self.memory.weights(None, x.shape[0]), (), 0
        note("sdpa")
        tail, query_tail, memory, weights, rows, count = state
        asked, query_tail = self.memory.queries(x, query_tail)
        qkv, tail = self.conv(torch.cat([self.query(x), self.key_value(x)], -1), tail)
        own = [split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1)]
        prefix = self._prefix(x)
        ys, reads, start = [], [], 0
        while start < x.shape[1]:
            piece = slice(start, min(start + self.segment - count, x.shape[1]))
            recalled = self._lift(self.memory.retrieve(weights, asked[:, piece]))
            y, rows = self._attend([part[:, piece] for part in own], recalled, prefix, rows, count)
            read, memory = self.memory(y, memory)
            ys.append(y)
            reads.append(read)
            start, count = piece.stop, rows[0].shape[1]
            if count == self.segment:
                weights, rows, count = self.memory.weights(memory, x.shape[0]), tuple(part[:, :0] for part in rows), 0
        o = self.out(self.gating(torch.cat(ys, 1), self._lift(torch.cat(reads, 1))))
        return o, (tail, query_tail, memory, weights, tuple(part.clone() for part in rows), count)

    def _prefix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the persistent tokens, for every row of x; their places begin every segment."""
        k, v = self._context(self.persistent.to(x.dtype)[None])
        return tuple(part.expand(x.shape[0], -1, -1, -1) for part in (rotary(k, 0), v))

    def _context(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of P or h, [b, n, width]. No convolution: it would carry later rows into earlier tokens."""
        return tuple(split_heads(part, self.heads) for part in self.key_value(rows).chunk(2, dim=-1))

    def _lift(self, recalled: Tensor) -> Tensor:
        """What the memory answered, [b, t, h, d], as rows of the model's width."""
        return self.recall_out(self.recall_norm(recalled))

    def _attend(
        self, own: list[Tensor], recalled: Tensor, prefix: tuple[Tensor, Tensor], rows: tuple[Tensor, ...], count: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attention of tokens from place `count` of the segment on, over P and the pairs (h_j, S_j) with j up to their own.

        `own` are their q, k and v; returns y [b, t, width] and the keys and values of all the segment's pairs.
        """
        q, k, v = own
        recalled_k, recalled_v = self._context(recalled)
        turned = rotary(torch.cat([q, recalled_k, k], 2), len(self.persistent) + count)
        new = turned[:, :, self.heads :].unflatten(2, (2, -1)), torch.stack([recalled_v, v], 2)
        rows = tuple(torch.cat(pair, 1) for pair in zip(rows, new, strict=True)) if count else new
        keys, values = (torch.cat([first, part.flatten(1, 2)], 1) for first, part in zip(prefix, rows, strict=True))
        place = torch.arange(count, count + q.shape[1], device=q.device)
        pair = torch.arange(rows[0].shape[1], device=q.device).repeat_interleave(2)
        mask = F.pad(place[:, None] >= pair, (len(self.persistent), 0), value=True)
        q, keys, values = (part.transpose(1, 2) for part in (turned[:, :, : self.heads], keys, values))
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.attention_out(y.transpose(1, 2).flatten(2)), rows
