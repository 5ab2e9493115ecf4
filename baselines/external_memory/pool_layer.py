"""A layer of MemoryLLM: causal attention of a segment behind memory rows, for a piece of it, and for many segments at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import rotary, split_heads
from models.ops.autograd import by_hand
from models.ops.providers import note
from models.shell.model import Block

Cache = tuple[Tensor, Tensor]  # keys, turned, and values [b, n, h, d]
Renew = Callable[[Tensor, int], Tensor]  # a segment's last rows and its number -> the next segment's memory


class PoolAttention(nn.Module):
    """Attention in which memory rows stand at places 0, 1, .. and the segment's tokens behind them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        for layer, scale in ((self.qkv, 1.0), (self.out, 0.5)):
            nn.init.normal_(layer.weight, std=scale * width**-0.5)

    def hold(self, rows: Tensor) -> Cache:
        """Keys and values of memory rows [b, n, D]."""
        k, v = F.linear(rows, self.qkv.weight[rows.shape[-1] :]).chunk(2, dim=-1)
        return rotary(split_heads(k, self.heads), 0), split_heads(v, self.heads)

    def project(self, x: Tensor, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v [b, t, h, d] of tokens [b, t, D] that stand from `place` on."""
        qk, v = self.qkv(x).split([2 * x.shape[-1], x.shape[-1]], dim=-1)
        q, k = rotary(split_heads(qk, 2 * self.heads), place).chunk(2, dim=2)
        return q, k, split_heads(v, self.heads)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The last rows q [b, t, h, d] over the keys and values [b, n, h, d] up to each one's own: [b, t, D]."""
        return self.out(found(q, k, v, up_to_own(q.shape[1], k.shape[1], q)))


class PoolBlock(Block):
    """A layer of the shell around it. Its cache begins with the memory's keys and values."""

    def __init__(self, width: int, heads: int, feed: int):
        super().__init__(width, PoolAttention(width, heads), feed)

    def hold(self, rows: Tensor, kind: torch.dtype) -> Cache:
        """Keys and values of memory rows [b, n, D]."""
        return self.mixer.hold(self.mixer_norm(rows.to(kind)))

    def forward(self, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        q, k, v = self.project(x, cache[0].shape[1])
        cache = joined(cache, (k, v))
        return self.rest(x, q, cache), cache

    def project(self, x: Tensor, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of tokens [b, t, D] that stand from `place` on."""
        return self.mixer.project(self.mixer_norm(x), place)

    def rest(self, x: Tensor, q: Tensor, cache: Cache) -> Tensor:
        """What the layer makes of tokens x [b, t, D] whose queries are the last ones of the cache."""
        x = x + self.mixer.attend(q, *cache)
        return x + self.feed(self.feed_norm(x))

    def chain(
        self, parts: Sequence[Tensor], memory: Tensor, rows: int, renew: Renew
    ) -> tuple[list[Tensor], list[Cache]]:
        """Only the last rows [b, K, D] of each segment, one after the other, and what each has read of its memory.

        `parts` are x [b, n, s, D] and its q, k and v [b, n, s, h, d]; `memory` [b, m, D] is the first segment's, and
        `renew(last rows, number)` makes the next one's.
        """
        x, q, k, v = parts
        (batch, several), width, past = x.shape[:2], x.shape[-1], memory.shape[1]
        weights = self.mixer.qkv.weight[width:], self.mixer.out.weight, self.feed.gate_up.weight, self.feed.down.weight
        key_value, out, gate_up, down = (
            ChainedMap(weight, several, batch * (rows if number else past)) for number, weight in enumerate(weights)
        )
        turn = turns(past, k)
        seen = up_to_own(rows, past + x.shape[2], q)
        last, held = [], []
        segments = zip(*(part.unbind(1) for part in (x[:, :, -rows:], q[:, :, -rows:], k, v)), strict=True)
        for number, (tail, query, *own) in enumerate(segments):
            keys, values = key_value(self.mixer_norm(memory.to(x.dtype))).chunk(2, dim=-1)
            held.append((turned(split_heads(keys, self.mixer.heads), turn), split_heads(values, self.mixer.heads)))
            y = tail + out(found(query, *joined(held[-1], own), seen))
            gate, up = gate_up(self.feed_norm(y)).chunk(2, dim=-1)
            last.append(y + down(F.silu(gate) * up))
            memory = renew(last[-1], number)
        return last, held


class ChainedMap:
    """A linear map of few rows, applied `steps` times one after the other; its weight's gradient is one product over all steps.

    To ask for it at each step would cost as much as everything else: it is as large as the weight, however few the rows are.
    What each step adds to its product is a part of one tensor of zeros, whose gradient is thus that of all outputs together.
    """

    def __init__(self, weight: Tensor, steps: int, rows: int):
        self.weight, self.heard = weight.detach().T, []
        self.zeros = iter(_Late.apply(weight, self.heard, (steps, rows, len(weight))).unbind(0))

    def __call__(self, x: Tensor) -> Tensor:
        """`x W^T` of x [b, t, in]."""
        rows = x.flatten(0, 1)
        self.heard.append(rows.detach())
        return torch.addmm(next(self.zeros), rows, self.weight).unflatten(0, x.shape[:2])


class _Late(torch.autograd.Function):
    """`apply(weight, heard, shape)` -> zeros; the weight's gradient from theirs and from what was heard until then."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, heard: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        ctx.heard = heard
        return weight.new_zeros(shape)

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return dy.flatten(0, 1).T @ torch.cat(ctx.heard).to(dy.dtype), None, None


def up_to_own(rows: int, columns: int, like: Tensor) -> Tensor:
    """What the last `rows` of `columns` tokens see: 0 up to their own place, minus infinity behind it."""
    return like.new_full((rows, columns), -torch.inf).triu_(columns - rows + 1)


def found(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """What queries [b, t, h, d] find among keys and values [b, n, h, d] under a mask [t, n]: [b, t, h d]."""
    note("sdpa")
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen.to(q.dtype)).transpose(1, 2).flatten(2)


def turns(count: int, like: Tensor) -> Tensor:
    """Cosines and, behind them, sines of places 0 .. count - 1 for heads [b, t, h, d]: [1, count, 1, d]."""
    one = like.new_ones(1, count, 1, like.shape[-1] // 2)
    return rotary(torch.cat([one, torch.zeros_like(one)], -1), 0)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """x [b, t, h, d] turned by the cosines and, behind them, sines of its places, [1, t, 1, d]."""
    (first, second), (cosine, sine) = x.chunk(2, -1), turn.to(x.dtype).chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def joined(old: Sequence[Tensor], new: Sequence[Tensor]) -> Cache:
    """A cache with new keys and values behind it."""
    k, v = (torch.cat([past.to(part.dtype), part], 1) for past, part in zip(old, new, strict=True))
    return k, v


def beside(caches: Sequence[Cache]) -> Cache:
    """Caches [b, ..] of n segments as one [b n, ..]."""
    k, v = (torch.stack(parts, 1).flatten(0, 1) for parts in zip(*caches, strict=True))
    return k, v


def kept(count: int, rows: int, draw: int, update: int, layer: int) -> list[int]:
    """The places of the rows, of `count`, that stay in order where an update drops `rows` at random in a layer."""
    return sorted(random.Random(f"{draw} {update} {layer}").sample(range(count), count - rows))
