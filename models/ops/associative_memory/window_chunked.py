"""The Omega rule in chunks of one gradient anchor each: the law of `window_recurrence.py` to the last digits.

With G[t, s] the share that step s has in M_t, P[s, r] that of the window sum r in S_s, and B[r, i] = gamma_i for the c tokens
i of the window that ends at r, token i has the share (G P B)[t, i] in M_t: a window is a band matrix between the scans of a
memory with momentum. Orthogonal steps are no sums of tokens, so S is formed there: once a chunk, or for every token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.associative_memory.anchored import as_text, by_chunk, read, stacked, writes
from models.ops.associative_memory.newton_schulz import newton_schulz
from models.ops.associative_memory.window_recurrence import (
    State,
    Weights,
    WindowRule,
    recurrence,
    resume,
    suspend,
    tokens_of,
)
from models.ops.neural_memory.gate_table import coefficients
from models.ops.neural_memory.recurrence import ACTIVATIONS


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weight: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: WindowRule,
    momentum: Tensor | None = None,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.associative_memory.window_recurrence.recurrence` in chunks; same shapes.

    Half precision is computed in float32, and states stay there.
    """
    if not q.numel():
        gates = {"weight": weight, "rate": rate, "keep": keep, "momentum": momentum}
        return recurrence(q, k, v, **gates, initial=initial, rule=rule, state=state)
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        tokens = tuple(part.to(kind) for part in tokens_of(k, v, weight, rate, keep, momentum, rule))
        first = tuple(w.to(kind) for w in initial)
        weights, surprise, tokens, past = resume(tokens, first, momentum is not None, rule, state)
        total = tokens[0].shape[1] - rule.window + 1
        size = min(total, rule.chunk)
        short = -total % size
        filled = [F.pad(x, (0, 0) * (x.dim() - 2) + (0, short)) if short else x for x in tokens]
        queries = by_chunk(F.pad(q.to(kind), (0, 0, 0, 0, past, short)), size)
        reach = [_reaching(x, size, rule.window) for x in filled[:3]]
        gates = [by_chunk(x[:, rule.window - 1 :], size) for x in filled[3:]]
        walk = _Walk(queries, *reach, *gates, rule=rule)
        y, *last = walk.go(
            [part.flatten(0, 1) for part in weights], [part.flatten(0, 1) for part in surprise], not short
        )
    weights, surprise = (tuple(part.unflatten(0, weights[0].shape[:2]) for part in parts) for parts in last)
    return as_text(y, q.shape[0])[:, past:total].to(q.dtype), suspend(weights, surprise, tokens, rule)


def _reaching(x: Tensor, size: int, window: int) -> Tensor:
    """Every chunk's tokens with the window - 1 before it: [b, window - 1 + n * size, h, ...] -> [n, b * h, L, ...]."""
    return x.unfold(1, size + window - 1, size).movedim((1, -1), (0, 3)).flatten(1, 2).contiguous()


class _Walk:
    """One walk over chunks: `go`. Shares by their letters in this file; `g` and `p` are those of M and S before the chunk."""

    def __init__(self, q, k, v, weight, rate, keep, momentum=None, *, rule: WindowRule):
        self.q, self.k, self.v, self.rule, self.size = q, k, v, rule, q.shape[2]
        none = torch.zeros_like(keep)
        table = coefficients(none, keep, self.size, rate)[0][:, :, 1:]
        self.g, self.G = table[..., :1], table[..., 2:]
        place = torch.arange(k.shape[2], device=k.device) - torch.arange(self.size, device=k.device)[:, None]
        band = ((place >= 0) & (place < rule.window)).to(weight)
        self.PB = band * weight[:, :, None]
        if momentum is not None:
            table = coefficients(none, momentum, self.size)[0][:, :, 1:]
            self.p, self.PB = table[..., :1], table[..., 2:] @ self.PB
        self.momentum = momentum is not None
        # Chunk by chunk, looked up once: an index has a backward pass over the whole text.
        self.g_of, self.G_of, self.PB_of = (x.unbind() for x in (self.g, self.G, self.PB))
        self.p_of = self.p.unbind() if self.momentum else ()

    def go(
        self, weights: list[Tensor], surprise: list[Tensor], filled: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """What the queries read, [n, g, size, out], and M and S at the last anchor; one chunk after another.

        A last chunk that is not whole (not `filled`, or shorter than a chunk) leaves M and S as they were.
        """
        kinds = {None: self._sum, "chunk": self._orthogonal_end, "token": self._orthogonal_tokens}
        step, kept, before = kinds[self.rule.orthogonal], [], (weights, surprise)
        for n, (k, v) in enumerate(zip(self.k.unbind(), self.v.unbind(), strict=True)):
            before = weights, surprise
            a, e = writes(weights, k, lambda z, v=v: v - z, self.rule)
            *after, more = step(n, a, e, weights, surprise)
            kept.append((weights, surprise, after[0], a, e, more))
            weights, surprise = after
        y = self._read(kept)
        whole = filled and self.size == self.rule.chunk
        return y, *((weights, surprise) if whole else before)

    def _sum(self, n, a, e, weights, surprise):
        """After a chunk whose steps are sums of writes."""
        last = self.G_of[n][:, -1:]  # [g, 1, size]
        shares = (last @ self.PB_of[n]).mT
        after = [
            torch.baddbmm(self.g_of[n][:, -1:] * w, x.mT, shares * y) for w, x, y in zip(weights, a, e, strict=True)
        ]
        if not self.momentum:
            return after, surprise, None
        after = [w + (last @ self.p_of[n]) * s for w, s in zip(after, surprise, strict=True)]
        return after, self._surprise(n, a, e, surprise), None

    def _surprise(self, n, a, e, surprise) -> list[Tensor]:
        """S after a chunk."""
        shares = self.PB_of[n][:, -1:].mT
        return [
            torch.baddbmm(self.p_of[n][:, -1:] * s, x.mT, shares * y) for s, x, y in zip(surprise, a, e, strict=True)
        ]

    def _orthogonal_end(self, n, a, e, weights, surprise):
        """After a chunk that steps at its end."""
        surprise = self._surprise(n, a, e, surprise)
        amount = self.G_of[n][:, -1:].sum(-1, keepdim=True)
        after = [self.g_of[n][:, -1:] * w + amount * newton_schulz(s) for w, s in zip(weights, surprise, strict=True)]
        return after, surprise, None

    def _orthogonal_tokens(self, n, a, e, weights, surprise):
        """After a chunk in which every token steps; also every token's M, [g, size, in, out] per layer."""
        memories, last = [], []
        for w, s, x, y in zip(weights, surprise, a, e, strict=True):
            each = (x[..., None] * y[..., None, :]).flatten(2)
            each = torch.baddbmm(self.p_of[n] * s.flatten(1)[:, None], self.PB_of[n], each).unflatten(-1, s.shape[-2:])
            last.append(each[:, -1])
            steps = newton_schulz(each).flatten(2)
            memories.append(
                torch.baddbmm(self.g_of[n] * w.flatten(1)[:, None], self.G_of[n], steps).unflatten(-1, w.shape[-2:])
            )
        return [memory[:, -1] for memory in memories], last, memories

    def _read(self, kept: list) -> Tensor:
        weights, surprise, after, a, e, more = zip(*kept, strict=True)
        q, g, starts = self.q.flatten(0, 1), self.g.flatten(0, 1), stacked(weights)
        if self.rule.orthogonal is None:
            within, found = (self.G @ self.PB).flatten(0, 1), [[(g, start)] for start in starts]
            if self.momentum:
                shares = (self.G @ self.p).flatten(0, 1)
                found = [[*one, (shares, s)] for one, s in zip(found, stacked(surprise), strict=True)]
            h = read(q, found, stacked(a), stacked(e), [within] * len(starts), self.rule)
        else:
            h, ends = q, stacked(after)
            for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
                h = ACTIVATIONS[self.rule.activation](h) if index else h
                if self.rule.orthogonal == "token":
                    h = (h[..., None, :] @ torch.stack([one[index] for one in more]).flatten(0, 1))[..., 0, :]
                elif self.size < self.rule.chunk:
                    h = g * torch.bmm(h, start)
                else:
                    h = torch.cat([g[:, :-1] * torch.bmm(h[:, :-1], start), torch.bmm(h[:, -1:], end)], 1)
        return h.unflatten(0, self.k.shape[:2])
