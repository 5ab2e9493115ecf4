"""The deep memory's loop over its chunks, one gradient anchor each, and its reads, with the backward loop written out.

At the start of a chunk its keys run through the weights W_1 .. W_L of that moment, and their errors run back:

    a_0 = K,      z_l = (a_{l-1} W_l) o kappa_l,   a_l = s(z_l)
    e_L = V - z_L,      e_l = ((e_{l+1} o kappa_{l+1}) W_{l+1}^T) o s'(z_l)

(kappa is 1, or what the token keeps where gradients are taken at the decayed memory.) Then every layer is read and written:

    y_l = A[.,W] h_{l-1} W_l + A[.,S] h_{l-1} S_l + (h_{l-1} a_{l-1}^T o A) e_l,   h_0 = Q,   h_l = s(y_l)
    W <- A[C,W] W + A[C,S] S + a^T (e o A[C]),   S <- P[C,S] S + a^T (e o P[C])

with the coefficients A and P of `gate_table.py`. Chunks n come first, then groups g (batch times heads); a slab of
chunks is computed together where no chunk waits for another, small enough for a core's cache. `deep_chunks_backward.py`
goes back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.neural_memory.deep.deep_chunks_backward import Backward, Reads, Saved, SavedStates, spread_errors
from models.ops.neural_memory.deep.derivatives import residual_error, second_derivative, times_derivative
from models.ops.neural_memory.linear_blocks import Layout, tokens_of
from models.ops.neural_memory.recurrence import ACTIVATIONS, Rule

Tensors = tuple[Tensor, ...]


def chunk_loop(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    states: Tensors,
    tables: Tensors,
    ends: Tensors,
    keeps: Tensors | None,
    layout: Layout,
    rule: Rule,
) -> tuple[Tensor, Tensors]:
    """What every token reads from the last layer, [b, t, h, out], and per layer [W | S] after the last chunk.

    Shapes: q, k [b, t, h, in]; v [b, t, h, out], t in whole chunks; per layer: `states` [W | S] [g, in, 2 out]; `keeps` kappa
    [n, g, size, c], c = 1 or out, or None for 1. `tables` [n, g, size + 1, size + 2, c] and `ends` [n, g, 2, size + 2, c] are one
    per layer, or a single one for all.
    """
    y, *last = _ChunkLoop.apply(
        rule, layout, len(states), len(tables), q, k, v, *states, *tables, *ends, *(keeps or ())
    )
    return y, tuple(last)


class _ChunkLoop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rule: Rule, layout: Layout, depth: int, shared: int, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor
    ) -> Tensors:
        ends = [0, depth, depth + shared, depth + 2 * shared, len(rest)]
        states, tables, closing, keeps = (rest[a:b] for a, b in zip(ends, ends[1:], strict=False))
        saved = Saved(rule, layout, states, tables, closing, keeps, any(ctx.needs_input_grad))
        y = torch.empty_like(v, memory_format=torch.contiguous_format)
        y_blocks = layout.cut(y)
        for part in layout.slabs(q):
            keys, values = tokens_of(k, part, layout), tokens_of(v, part, layout)
            closing_parts = [saved.closing(index, part) for index in range(depth)]
            for i, n in enumerate(range(part.start, part.stop)):
                _chunk(saved, n, keys[i], values[i], [(shares[i], mix[i]) for shares, mix in closing_parts])
            h = _read(saved, part, tokens_of(q, part, layout), keys)
            y_blocks[part].copy_(h.unflatten(1, y_blocks.shape[1:3]))
        ctx.save_for_backward(q, k, v, *tables, *closing, *keeps, *saved.kept.flat())
        ctx.rule, ctx.layout, ctx.ends = rule, layout, [0, shared, 2 * shared, 2 * shared + len(keeps)]
        ctx.depth = depth
        return y, *(start[-1].clone() for start in saved.kept.starts)

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, *d_last: Tensor) -> tuple[Any, ...]:
        q, k, v, *rest = ctx.saved_tensors
        shares = [rest[a:b] for a, b in zip(ctx.ends, ctx.ends[1:], strict=False)]
        saved = Saved.again(ctx.rule, ctx.layout, SavedStates.of(rest[ctx.ends[-1] :], ctx.depth), *shares)
        backward = Backward(saved, q, k, v, d_last)
        for part in reversed(ctx.layout.slabs(q)):
            backward.slab(part, tokens_of(dy, part, ctx.layout))
        return None, None, None, None, *backward.gradients()


def _chunk(saved: Saved, n: int, k: Tensor, v: Tensor, closing: list[Tensors]) -> None:
    """One chunk: its inputs a_{l-1} and errors e_l, and every layer's state after it."""
    rule, kept, depth = saved.rule, saved.kept, saved.depth
    weights = [start[n].chunk(2, -1)[0] for start in kept.starts]
    a, derivatives, hidden = k, [], []
    for index, weight in enumerate(weights):
        z = torch.bmm(a, weight) if index + 1 < depth or rule.residual else None
        if z is not None and saved.keeps:
            z.mul_(saved.keeps[index][n])
        if index + 1 < depth:
            kept.inputs[index][n] = ACTIVATIONS[rule.activation](z)
            derivatives.append(times_derivative(torch.ones((), dtype=z.dtype).expand_as(z), z, rule))
            hidden.append(z)
            a = kept.inputs[index][n]
    last = kept.errors[-1][n]
    if rule.residual:
        kept.before[n] = z
        last.copy_(residual_error(z, k, v))
    elif saved.keeps:
        torch.sub(v, torch.bmm(a, weights[-1]).mul_(saved.keeps[-1][n]), out=last)
    else:
        torch.baddbmm(v, a, weights[-1], alpha=-1, out=last)
    for index in range(depth - 2, -1, -1):
        error = kept.errors[index + 1][n]
        up = torch.bmm(error * saved.keeps[index + 1][n] if saved.keeps else error, weights[index + 1].mT)
        torch.mul(up, derivatives[index], out=kept.errors[index][n])
        if kept.derivatives:
            kept.derivatives[index][n] = derivatives[index]
            torch.mul(up, second_derivative(hidden[index], rule), out=kept.curves[index][n])
    for index in range(depth):
        a = kept.inputs[index - 1][n] if index else k
        _write(kept.starts[index], n, a, kept.errors[index][n], *closing[index])


def _write(starts: Tensor, n: int, a: Tensor, e: Tensor, shares: Tensor, mix: Tensor) -> None:
    """[W | S] after a chunk whose tokens write a^T e."""
    (w, s), (new_w, new_s) = starts[n].chunk(2, -1), starts[n + 1].chunk(2, -1)
    torch.mul(w, mix[:, 0, 0], out=new_w).addcmul_(s, mix[:, 0, 1])
    torch.mul(s, mix[:, 1, 1], out=new_s)
    starts[n + 1].baddbmm_(a.mT, spread_errors(e, shares))


def _read(saved: Saved, part: slice, q: Tensor, k: Tensor) -> Tensor:
    """What the queries of a slab read from the last layer, [s, g, size, out]."""
    h = q
    for index in range(saved.depth):
        reads = Reads(saved, index, part, h, k)
        y = reads.forward()
        if index + 1 < saved.depth:
            if saved.kept.derivatives:
                saved.kept.reads[index][part] = y
            h = ACTIVATIONS[saved.rule.activation](y)
    return y
