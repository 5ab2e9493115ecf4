"""Erasing and writing with keys of their own in chunks: matrix products inside a chunk, a short loop over the chunks' states.

With c the cumulated log-forgetting of a chunk, u that which comparing sees (c, or that before the token), S the state before the
chunk, and, as one kind or two, the writes [w] with contents Z = [E], or [x, w] with Z = [-P, V]:

    A[t,s] = p_t . w_s e^{u_t - c_s}  (s < t),    Q[t,s] = q_t . w_s e^{c_t - c_s}  (s <= t)
    one kind     (I + A) E = V - (p e^u) S
    two kinds    (I + A_x) (-P) = -A_w V - (p e^u) S
    Y = Q Z + (q e^c) S,    S' = e^{c_C} S + (writes e^{c_C - c})^T Z

(Yang et al. 2024, arXiv 2406.06484, with the gates of arXiv 2312.06635.) `halving.py` gives A, Q and the three products with
gates; no exponent is above 0. The backward pass is by hand: D = (I + A)^-T dZ is the gradient of the right-hand side, and of
A it is -D Z^T.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.erase_and_write.halving import Level, products, products_backward
from models.ops.triangular import unit_lower_inverse

CHUNK = 32


def chunked(
    q: Tensor,
    compare: Tensor,
    write: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor,
    erase: Tensor | None = None,
    before: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.erase_and_write.recurrence.recurrence` in chunks; same shapes.

    Half precision is computed in float32, states stay there.
    """
    dtype, kind = q.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        q, compare, erase, write, v, log_forget, state = (
            None if x is None else x.to(kind) for x in (q, compare, erase, write, v, log_forget, state)
        )
        batch, time, heads, width = q.shape
        if state is None:
            state = q.new_zeros(batch, heads, width, v.shape[-1])
        if not time:
            return v.to(dtype), state
        if log_forget.dim() == 3:
            log_forget = log_forget[..., None].expand_as(q)
        size = min(CHUNK, 1 << (time - 1).bit_length())
        inputs = (None if x is None else _cut(x, size) for x in (q, compare, write, erase, v, log_forget))
        y, state = EraseAndWrite.apply(*inputs, state.flatten(0, 1), before)
        y = y.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :time]
    return y.to(dtype), state.unflatten(0, (batch, heads))


def _cut(x: Tensor, size: int) -> Tensor:
    """[b, t, h, ...] -> [n, b * h, size, ...], zero-filled at the end: zeros compare, write and forget nothing."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % size))
    return x.unflatten(1, (-1, size)).permute(1, 0, 3, 2, 4).flatten(1, 2)


class EraseAndWrite(torch.autograd.Function):
    """`apply(q, compare, write, erase, v, log_forget, state, before)` -> y [n, m, c, v] and the last state.

    Shapes: n chunks of c tokens, c a power of two, for m = batch * heads states. q, compare, write, erase (or None: `write`)
    and log_forget [n, m, c, k]; v [n, m, c, v]; state [m, k, v].
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        compare: Tensor,
        write: Tensor,
        erase: Tensor | None,
        v: Tensor,
        log_forget: Tensor,
        state: Tensor,
        before: bool,
    ):
        gate = log_forget.exp()
        reads = torch.stack([compare if before else compare * gate, q * gate], 3)
        writes = torch.stack([write] if erase is None else [erase, write], 3)
        kinds = writes.shape[3]
        table, levels, keep = products(reads, writes, log_forget)
        inside, seen = _rows(table, 0), _rows(table, 1)
        for kind, key in enumerate([write] if erase is None else [erase, write]):
            _own(seen, kind, kinds).copy_((q * key).sum(-1))
        inverse = unit_lower_inverse(_kind(inside, 0, kinds).flatten(0, 1)).view(*q.shape[:3], -1)
        contents = v.new_empty(*v.shape[:3], kinds, v.shape[-1])
        contents[..., -1, :] = v
        if erase is None:
            errors = inverse @ v
        else:
            errors = (inverse @ (_kind(inside, 1, kinds) @ v)).neg_()
        known = inverse @ reads[..., 0, :]
        states = _walk(errors, known, writes, v, keep.mT, state)
        contents[..., 0, :] = errors
        y = seen @ contents.flatten(2, 3)
        y.flatten(0, 1).baddbmm_(reads[..., 1, :].flatten(0, 1), states[:-1].flatten(0, 1))
        ctx.save_for_backward(
            q, compare, write, erase, log_forget, table, inverse, contents, known, states, reads, writes, keep,
            *(x for level in levels for x in level),
        )  # fmt: skip
        ctx.before = before
        return y, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, compare, write, erase, log_forget, table, inverse, contents, known, states, reads, writes, keep, *levels = (
            ctx.saved_tensors
        )
        kinds, dy = writes.shape[3], dy.contiguous()
        derrors = _kind(_rows(table, 1), 0, kinds).mT @ dy
        dstates = _walk_back(derrors, known, writes, (reads[..., 1, :].mT @ dy), keep.mT, dlast)
        right = inverse.mT @ derrors  # D
        out = torch.stack([-right, dy], 3).flatten(2, 3)
        if erase is None:
            dv = right
        else:
            dv = _kind(table, 1, kinds).mT @ out
            dv += writes[..., 1, :] @ dstates[1:]
        dtable = out @ contents.flatten(2, 3).mT
        dreads = (out @ states[:-1].mT).view_as(reads)
        dwrites = (contents.flatten(2, 3) @ dstates[1:].mT).view_as(writes)
        dkeep = (states[:-1] * dstates[1:]).sum(-1)[:, :, None].mul_(keep)
        levels = [Level(*levels[at : at + 4]) for at in range(0, len(levels), 4)]
        dreads, dwrites, dforget = products_backward(dtable, dreads, dwrites, dkeep, levels)
        dcompare, dq = dreads.unbind(3)
        gate = log_forget.exp()
        dq = dq * gate
        dforget.addcmul_(dq, q)
        if not ctx.before:
            dcompare = dcompare * gate
            dforget.addcmul_(dcompare, compare)
        keys, dkeys = [write] if erase is None else [erase, write], []
        for kind, key in enumerate(keys):
            own = _own(_rows(dtable, 1), kind, kinds)[..., None]
            dq.addcmul_(own, key)
            dkeys.append(torch.addcmul(dwrites[..., kind, :], own, q))
        derase = None if erase is None else dkeys[0]
        return dq, dcompare, dkeys[-1], derase, dv, dforget, dstates[0], None


def _rows(table: Tensor, which: int) -> Tensor:
    """Those of comparing (0) or of reading (1): [n, m, 2 c, ..] -> a view [n, m, c, ..]."""
    return table.unflatten(2, (-1, 2))[:, :, :, which]


def _kind(table: Tensor, kind: int, kinds: int) -> Tensor:
    """The products with one kind of writes: [n, m, .., c * kinds] -> [n, m, .., c]."""
    # Of a matrix whose neighbours lie apart, every product would copy each of the batch by itself.
    return table if kinds == 1 else table[..., kind::kinds].contiguous()


def _own(table: Tensor, kind: int, kinds: int) -> Tensor:
    """Each token's product with its own write of a kind: a view [n, m, c] of [n, m, c, c * kinds]."""
    return table[..., kind::kinds].diagonal(dim1=-2, dim2=-1)


def _walk(errors: Tensor, known: Tensor, writes: Tensor, v: Tensor, keep: Tensor, first: Tensor) -> Tensor:
    """States before each chunk and after the last [n + 1, m, k, v]; `errors` loses, in place, what states know already."""
    states = first.new_empty(len(errors) + 1, *first.shape)
    states[0] = first
    if writes.shape[3] == 2:
        torch.matmul(writes[..., 1, :].mT, v, out=states[1:])
    erases = writes[..., 0, :].mT
    for i in range(len(errors)):
        errors[i].baddbmm_(known[i], states[i], alpha=-1)
        if writes.shape[3] == 2:
            states[i + 1].addcmul_(states[i], keep[i])
        else:
            torch.mul(states[i], keep[i], out=states[i + 1])
        states[i + 1].baddbmm_(erases[i], errors[i])
    return states


def _walk_back(derrors: Tensor, known: Tensor, writes: Tensor, reads: Tensor, keep: Tensor, last: Tensor) -> Tensor:
    """Gradients of all states [n + 1, m, k, v] from those of chunks' reads; `derrors` gets, in place, what states learn."""
    dstates = last.new_empty(len(reads) + 1, *last.shape)
    dstates[-1] = last
    dstates[:-1] = reads
    erases = writes[..., 0, :]
    for i in reversed(range(len(derrors))):
        derrors[i].baddbmm_(erases[i], dstates[i + 1])
        dstates[i].addcmul_(dstates[i + 1], keep[i])
        dstates[i].baddbmm_(known[i].mT, derrors[i], alpha=-1)
    return dstates
