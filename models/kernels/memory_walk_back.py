"""The way back over the deep memory's walk (`memory_walk.py`): what is kept for it, and the gradients, a slab at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.kernels.memory_blocks import Layout, add_product, gathered, product, tokens_of
from models.neural_memory import ACTIVATIONS, NORM_EPSILON, Rule


@dataclass
class Kept:
    """Per layer, [n, g, ...]: [W | S] before each chunk and after the last, and e_l.

    Per hidden layer: a_l; and for a gradient s'(z_l), (e_{l+1} W_{l+1}^T) o s''(z_l), and y_l. `before` is z_L of a residual memory.
    """

    starts: list[Tensor]
    errors: list[Tensor]
    inputs: list[Tensor]
    slopes: list[Tensor] = field(default_factory=list)
    curves: list[Tensor] = field(default_factory=list)
    reads: list[Tensor] = field(default_factory=list)
    before: Tensor | None = None


class Saved:
    """One walk's rule, shares and kept numbers."""

    def __init__(self, rule: Rule, layout: Layout, states, tables, ends, keeps, learning: bool):
        count, groups = tables[0].shape[:2]
        outs = [state.shape[-1] // 2 for state in states]

        def room(width: int) -> Tensor:
            return states[0].new_empty(count, groups, layout.size, width)

        starts = [state.new_empty(count + 1, *state.shape) for state in states]
        for start, state in zip(starts, states, strict=True):
            start[0] = state
        hidden = [[room(width) for width in outs[:-1]] for _ in range(4 if learning else 1)]
        self.kept = Kept(
            starts, [room(width) for width in outs], *hidden, before=room(outs[-1]) if rule.residual else None
        )
        self._have(rule, layout, tables, ends, keeps)

    @classmethod
    def again(cls, rule: Rule, layout: Layout, kept: Kept, tables, ends, keeps) -> Saved:
        """What a walk that has been gone had."""
        saved = cls.__new__(cls)
        saved.kept = kept
        saved._have(rule, layout, tables, ends, keeps)
        return saved

    def _have(self, rule: Rule, layout: Layout, tables, ends, keeps) -> None:
        self.rule, self.layout, self.tables, self.ends, self.keeps = rule, layout, tables, ends, keeps
        self.depth = len(self.kept.starts)

    def closing(self, index: int, n: int) -> tuple[Tensor, Tensor]:
        """Shares of a chunk's tokens at its end, [g, size, 2, c], and what is kept of [W | S], [g, 2, 2, 1, c]."""
        ends = self.ends[min(index, len(self.ends) - 1)][n]
        return ends[:, :, 2:].transpose(1, 2), ends[:, :, :2, None]


class Reads:
    """One layer's reads by the queries h [s, g, size, in] of a slab."""

    def __init__(self, saved: Saved, index: int, part: slice, h: Tensor, k: Tensor):
        kept = saved.kept
        self.h, self.a = h, kept.inputs[index - 1][part] if index else k
        self.errors, self.starts = kept.errors[index][part], kept.starts[index][part]
        rows = saved.tables[min(index, len(saved.tables) - 1)][part, :, saved.layout.reads]
        self.before, self.within = rows[..., :2, :], rows[..., 2:, :]
        self.wide = rows.shape[-1] > 1

    def forward(self) -> Tensor:
        from_w, from_s = product(self.h, self.starts).chunk(2, -1)
        y = torch.mul(from_w, self.before[..., 0, :]).addcmul_(from_s, self.before[..., 1, :])
        scores = product(self.h, self.a.mT)
        if self.wide:
            return y + torch.einsum("...ts,...tsc,...sc->...tc", scores, self.within, self.errors)
        add_product(y, scores.mul_(self.within[..., 0]), self.errors)
        return y

    def backward(self, dy: Tensor, d_rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of h, a and e; the table's rows' into `d_rows`."""
        scores = product(self.h, self.a.mT)
        if self.wide:
            return self._wide(dy, d_rows, scores)
        weights, surprise = self.starts.chunk(2, -1)
        pulled = torch.stack([product(dy, weights.mT), product(dy, surprise.mT)], -2).flatten(-2)
        dh, d_rows[..., :2, 0] = gathered(pulled, self.h, self.before[..., 0])
        d_scores = product(dy, self.errors.mT)
        torch.mul(scores, d_scores, out=d_rows[..., 2:, 0])
        d_errors = product(scores.mul_(self.within[..., 0]).mT, dy)
        d_scores.mul_(self.within[..., 0])
        add_product(dh, d_scores, self.a)
        return dh, product(d_scores.mT, self.h), d_errors

    def _wide(self, dy: Tensor, d_rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read = product(self.h, self.starts).unflatten(-1, (2, -1))
        d_rows[..., :2, :] = dy.unsqueeze(-2) * read
        dh = product(self.spread(dy), self.starts.mT)
        shared = dy.unsqueeze(-2) * self.errors.unsqueeze(-3)
        d_rows[..., 2:, :] = scores.unsqueeze(-1) * shared
        d_scores = (shared * self.within).sum(-1)
        d_errors = torch.einsum("...ts,...tsc,...tc->...sc", scores, self.within, dy)
        add_product(dh, d_scores, self.a)
        return dh, product(d_scores.mT, self.h), d_errors

    def spread(self, dy: Tensor) -> Tensor:
        """The gradient of `h [W | S]`."""
        return (dy.unsqueeze(-2) * self.before).flatten(-2)


class Backward:
    """The gradients of one walk: `slab` goes back over some chunks, `gradients` gives all."""

    def __init__(self, saved: Saved, q: Tensor, k: Tensor, v: Tensor, d_last: tuple[Tensor, ...]):
        self.saved, self.texts = saved, (q, k)
        self.v = v
        self.d_texts = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
        self.d_states = list(d_last)
        self.d_tables = [torch.zeros_like(table) for table in saved.tables]
        self.d_ends = [torch.zeros_like(end) for end in saved.ends]
        self.d_keeps = [torch.zeros_like(keep) for keep in saved.keeps]

    def gradients(self) -> list[Tensor]:
        return [*self.d_texts, *self.d_states, *self.d_tables, *self.d_ends, *self.d_keeps]

    def slab(self, part: slice, dy: Tensor) -> None:
        saved, layout = self.saved, self.saved.layout
        q, k = (tokens_of(x, part, layout) for x in self.texts)
        self.v_slab = tokens_of(self.v, part, layout) if saved.rule.residual else None
        self.inputs = [k, *(a[part] for a in saved.kept.inputs)]
        self.queries, self.onto, self.d_inputs, self.d_errors = [], [], [], []
        d_q = self._unread(part, q, dy)
        d_v = torch.empty_like(dy)
        for i in range(len(k) - 1, -1, -1):
            self._step(i, part.start + i, d_v)
        for text, d in zip(self.d_texts, (d_q, self.d_inputs[0], d_v), strict=True):
            blocks = layout.cut(text)
            blocks[part].copy_(d.unflatten(1, blocks.shape[1:3]))

    def _unread(self, part: slice, q: Tensor, dy: Tensor) -> Tensor:
        """Back over the reads of a slab, to queries, inputs, errors and, in `onto`, what [W | S] will get."""
        saved = self.saved
        hs = [q, *(ACTIVATIONS[saved.rule.activation](y[part]) for y in saved.kept.reads)]
        for index in range(saved.depth - 1, -1, -1):
            reads = Reads(saved, index, part, hs[index], self.inputs[0])
            d_table = self.d_tables[min(index, len(self.d_tables) - 1)][part, :, saved.layout.reads]
            d_rows = torch.empty_like(d_table)
            d_h, d_a, d_e = reads.backward(dy, d_rows)
            d_table += d_rows
            self.onto.insert(0, reads.spread(dy))
            self.queries.insert(0, hs[index])
            self.d_inputs.insert(0, d_a)
            self.d_errors.insert(0, d_e)
            dy = times_slope(d_h, saved.kept.reads[index - 1][part], saved.rule) if index else d_h
        return dy

    def _step(self, i: int, n: int, d_v: Tensor) -> None:
        """Back over chunk n, the i-th of its slab."""
        saved, kept, last = self.saved, self.saved.kept, self.saved.depth - 1
        weights = [start[n].chunk(2, -1)[0] for start in kept.starts]
        d_states = [self._unwrite(i, n, index) for index in range(last + 1)]
        d_before, d_weights = [], []
        for index in range(last):
            d_before.append(self.d_errors[index][i] * kept.curves[index][n])
            d_weights.append(self._unpropagate(i, n, index, weights[index + 1]))
        error = self.d_errors[last][i]
        if saved.rule.residual:
            parts = (kept.before[n], self.inputs[0][i], self.v_slab[i])
            d, d_k, d_v[i] = torch.func.vjp(residual_error, *parts)[1](error)
            self.d_inputs[0][i] += d_k
        else:
            d_v[i] = error
            d = error.neg()
        for index in range(last, -1, -1):
            if index < last:
                d = d_before[index].addcmul_(self.d_inputs[index + 1][i], kept.slopes[index][n])
            a = self.inputs[index][i]
            if saved.keeps:
                self._unkeep(n, index, d * torch.bmm(a, weights[index]))
                d = d * saved.keeps[index][n]
            self.d_inputs[index][i].baddbmm_(d, weights[index].mT)
            d_weight = d_weights[index - 1].baddbmm_(a.mT, d) if index else torch.bmm(a.mT, d)
            d_states[index].chunk(2, -1)[0].add_(d_weight)
        self.d_states = d_states

    def _unwrite(self, i: int, n: int, index: int) -> Tensor:
        """Back over a layer's write, to its input, its error and the shares; gives the gradient of [W | S] before the chunk."""
        kept, d, a = self.saved.kept, self.d_states[index], self.inputs[index][i]
        error, d_error = kept.errors[index][n], self.d_errors[index][i]
        shares, mix = self.saved.closing(index, n)
        pulled = torch.bmm(a, d).unflatten(-1, (2, -1))
        d_error.addcmul_(pulled[:, :, 0], shares[:, :, 0]).addcmul_(pulled[:, :, 1], shares[:, :, 1])
        self.d_inputs[index][i].baddbmm_((error.unsqueeze(-2) * shares).flatten(-2), d.mT)
        d_ends = self.d_ends[min(index, len(self.d_ends) - 1)][n]
        d_ends[:, :, 2:] += narrowed(pulled.mul_(error.unsqueeze(-2)), shares).transpose(1, 2)
        (w, s), (dw, ds) = kept.starts[index][n].chunk(2, -1), d.chunk(2, -1)
        over = (-2, -1) if mix.shape[-1] == 1 else -2
        for row, column, left, right in ((0, 0, dw, w), (0, 1, dw, s), (1, 1, ds, s)):
            d_ends[:, row, column] += (left * right).sum(over).view_as(d_ends[:, row, column])
        before = torch.empty_like(d)
        into_w, into_s = before.chunk(2, -1)
        torch.mul(dw, mix[:, 0, 0], out=into_w)
        torch.mul(dw, mix[:, 0, 1], out=into_s).addcmul_(ds, mix[:, 1, 1])
        return before.baddbmm_(self.queries[index][i].mT, self.onto[index][i])

    def _unpropagate(self, i: int, n: int, index: int, weight: Tensor) -> Tensor:
        """Back over `e_l = ((e_{l+1} o kappa) W_{l+1}^T) o s'(z_l)`, to the next layer's error; gives its weights' gradient."""
        kept, after = self.saved.kept, self.d_errors[index + 1][i]
        d_up = self.d_errors[index][i] * kept.slopes[index][n]
        error = kept.errors[index + 1][n]
        if not self.saved.keeps:
            after.baddbmm_(d_up, weight)
            return torch.bmm(d_up.mT, error)
        keep, d_kept = self.saved.keeps[index + 1][n], torch.bmm(d_up, weight)
        self._unkeep(n, index + 1, d_kept * error)
        after.addcmul_(d_kept, keep)
        return torch.bmm(d_up.mT, error * keep)

    def _unkeep(self, n: int, index: int, d: Tensor) -> None:
        self.d_keeps[index][n] += narrowed(d, self.saved.keeps[index])


def narrowed(d: Tensor, like: Tensor) -> Tensor:
    """Gradient of what was broadcast over the last axis, where `like` has 1 there."""
    return d.sum(-1, keepdim=True) if like.shape[-1] == 1 else d


def residual_error(z: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Negative gradient of `1/2 |k + LN(z) - v|^2` with respect to z: LN's backward of `v - k - LN(z)`."""
    centred = z - z.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + NORM_EPSILON)
    n = centred * scale
    up = v - k - n
    return (up - up.mean(-1, keepdim=True) - n * (up * n).mean(-1, keepdim=True)) * scale


def times_slope(x: Tensor, z: Tensor, rule: Rule) -> Tensor:
    """`x o s'(z)`, in one kernel."""
    if rule.activation == "gelu":
        return torch.ops.aten.gelu_backward(x, z)
    return torch.ops.aten.silu_backward(x, z)


def bend(z: Tensor, rule: Rule) -> Tensor:
    """`s''(z)`."""
    if rule.activation == "gelu":
        square = z * z
        return torch.exp(-0.5 * square).mul_(square.neg_().add_(2)).mul_(1 / math.sqrt(2 * math.pi))
    below = torch.sigmoid(z)
    return below * (1 - below) * (2 + z * (1 - 2 * below))
