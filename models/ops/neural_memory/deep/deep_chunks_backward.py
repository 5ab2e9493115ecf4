"""The way back over the deep memory's chunk loop (`deep_chunks.py`): what is kept for it, and the gradients, a slab at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.ops.neural_memory.deep.derivatives import residual_error, times_derivative
from models.ops.neural_memory.linear_blocks import Layout, add_product, gathered, product, tokens_of
from models.ops.neural_memory.recurrence import ACTIVATIONS, Rule


@dataclass
class SavedStates:
    """Per layer, [n, g, ...]: [W | S] before each chunk and after the last, and e_l.

    Per hidden layer: a_l; and for a gradient s'(z_l), (e_{l+1} W_{l+1}^T) o s''(z_l), and y_l. `before` is a residual
    memory's z_L.
    """

    starts: list[Tensor]
    errors: list[Tensor]
    inputs: list[Tensor]
    derivatives: list[Tensor] = field(default_factory=list)
    curves: list[Tensor] = field(default_factory=list)
    reads: list[Tensor] = field(default_factory=list)
    before: Tensor | None = None

    def flat(self) -> list[Tensor | None]:
        return [*self.starts, *self.errors, *self.inputs, *self.derivatives, *self.curves, *self.reads, self.before]

    @classmethod
    def of(cls, flat: list[Tensor | None], depth: int) -> SavedStates:
        """What `flat` gave, of a chunk loop that learned."""
        parts = iter(flat)
        groups = [[next(parts) for _ in range(count)] for count in (depth, depth, *[depth - 1] * 4)]
        return cls(*groups, before=next(parts))


class Saved:
    """One chunk loop's rule, coefficients and kept numbers."""

    def __init__(self, rule: Rule, layout: Layout, states, tables, ends, keeps, learning: bool):
        count, groups = tables[0].shape[:2]
        outs = [state.shape[-1] // 2 for state in states]

        def room(width: int) -> Tensor:
            return states[0].new_empty(count, groups, layout.size, width)

        starts = [state.new_empty(count + 1, *state.shape) for state in states]
        for start, state in zip(starts, states, strict=True):
            start[0] = state
        hidden = [[room(width) for width in outs[:-1]] for _ in range(4 if learning else 1)]
        self.kept = SavedStates(
            starts, [room(width) for width in outs], *hidden, before=room(outs[-1]) if rule.residual else None
        )
        self._have(rule, layout, tables, ends, keeps)

    @classmethod
    def again(cls, rule: Rule, layout: Layout, kept: SavedStates, tables, ends, keeps) -> Saved:
        """What a chunk loop that has been gone had."""
        saved = cls.__new__(cls)
        saved.kept = kept
        saved._have(rule, layout, tables, ends, keeps)
        return saved

    def _have(self, rule: Rule, layout: Layout, tables, ends, keeps) -> None:
        self.rule, self.layout, self.tables, self.ends, self.keeps = rule, layout, tables, ends, keeps
        self.depth = len(self.kept.starts)

    def closing(self, index: int, part: slice) -> tuple[Tensor, Tensor]:
        """Coefficients of a slab's tokens at their chunk's end, [s, g, size, 2, c], and decay of [W | S], [s, g, 2, 2, 1, c]."""
        ends = self.ends[min(index, len(self.ends) - 1)][part]
        # Contiguous, or a product with them would not be.
        return ends[:, :, :, 2:].transpose(2, 3).contiguous(), ends[:, :, :, :2, None]


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
    """The gradients of one chunk loop: `slab` goes back over some chunks, `gradients` gives all."""

    def __init__(self, saved: Saved, q: Tensor, k: Tensor, v: Tensor, d_last: tuple[Tensor, ...]):
        self.saved, self.q, self.k, self.v = saved, q, k, v
        self.d_texts = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
        self.d_first = list(d_last)
        self.d_tables = [torch.zeros_like(table) for table in saved.tables]
        self.d_ends = [torch.zeros_like(end) for end in saved.ends]
        self.d_keeps = [torch.zeros_like(keep) for keep in saved.keeps]

    def gradients(self) -> list[Tensor]:
        return [*self.d_texts, *self.d_first, *self.d_tables, *self.d_ends, *self.d_keeps]

    def slab(self, part: slice, dy: Tensor) -> None:
        saved, layout = self.saved, self.saved.layout
        back = _DeepSlab(saved, part, *(tokens_of(x, part, layout) for x in (self.q, self.k)))
        if saved.rule.residual:
            back.v = tokens_of(self.v, part, layout)
        d_q = back.unread(dy, [d[part, :, layout.reads] for d in self.d_tables])
        d_v = torch.empty_like(dy)
        self.d_first = back.chunk_loop(self.d_first, d_v, [d[part] for d in self.d_keeps])
        back.unshare([d[part] for d in self.d_ends])
        for text, d in zip(self.d_texts, (d_q, back.d_inputs[0], d_v), strict=True):
            blocks = layout.cut(text)
            blocks[part].copy_(d.unflatten(1, blocks.shape[1:3]))


class _DeepSlab:
    """The way back over some chunks: `unread`, then `chunk_loop`, then `unshare`. Lists are per layer; `_i` has their chunks."""

    def __init__(self, saved: Saved, part: slice, q: Tensor, k: Tensor):
        kept = saved.kept
        self.saved, self.part, self.depth, self.residual = saved, part, saved.depth, saved.rule.residual
        self.inputs = [k, *(a[part] for a in kept.inputs)]
        self.hs = [q, *(ACTIVATIONS[saved.rule.activation](y[part]) for y in kept.reads)]
        self.errors, self.starts = ([x[part] for x in group] for group in (kept.errors, kept.starts))
        self.shares, self.mix = zip(*(saved.closing(index, part) for index in range(self.depth)), strict=True)
        self.onto, self.d_inputs, self.d_errors = ([None] * self.depth for _ in range(3))
        self.keeps = [keep[part] for keep in saved.keeps]
        self.v = k

    def unread(self, dy: Tensor, d_tables: list[Tensor]) -> Tensor:
        """Back over the reads, to queries, inputs, errors and, in `onto`, what [W | S] will get."""
        for index in range(self.depth - 1, -1, -1):
            reads = Reads(self.saved, index, self.part, self.hs[index], self.inputs[0])
            d_rows = torch.empty_like(d_tables[0 if len(d_tables) == 1 else index])
            d_h, self.d_inputs[index], self.d_errors[index] = reads.backward(dy, d_rows)
            d_tables[0 if len(d_tables) == 1 else index] += d_rows
            self.onto[index] = reads.spread(dy)
            dy = times_derivative(d_h, self.saved.kept.reads[index - 1][self.part], self.saved.rule) if index else d_h
        return dy

    def chunk_loop(self, d_last: list[Tensor], d_v: Tensor, d_keeps: list[Tensor]) -> list[Tensor]:
        """Back over the chunks one after another; gives the gradients of [W | S] before the first."""
        kept, part = self.saved.kept, self.part
        self.d_v, self.d_keeps = d_v, d_keeps
        # Row i + 1 is the gradient of [W | S] after chunk i, whole when that chunk's turn comes.
        self.d_states = [d.new_empty(len(d_v) + 1, *d.shape) for d in d_last]
        for rows, d in zip(self.d_states, d_last, strict=True):
            rows[-1] = d
        self.pulled = [torch.empty_like(onto) for onto in self.onto]
        self.written = [spread_errors(e, share) for e, share in zip(self.errors, self.shares, strict=True)]
        self.weights_i = _by_chunk(start.chunk(2, -1)[0] for start in self.starts)
        self.derivatives_i, self.curves_i = (
            _by_chunk(x[part] for x in group) for group in (kept.derivatives, kept.curves)
        )
        self.inputs_i, self.hs_i, self.errors_i = (_by_chunk(x) for x in (self.inputs, self.hs, self.errors))
        self.shares_i, self.mix_i, self.onto_i = (_by_chunk(x) for x in (self.shares, self.mix, self.onto))
        self.d_inputs_i, self.d_errors_i = (_by_chunk(x) for x in (self.d_inputs, self.d_errors))
        groups = self.d_states, self.pulled, self.written
        self.d_states_i, self.pulled_i, self.written_i = (_by_chunk(x) for x in groups)
        for i in range(len(d_v) - 1, -1, -1):
            self._step(i)
        return [rows[0] for rows in self.d_states]

    def _step(self, i: int) -> None:
        """Back over the i-th chunk of the slab."""
        last = self.depth - 1
        for index in range(last + 1):
            self._unwrite(i, index)
        d_before, d_weights = [], []
        for index in range(last):
            d_before.append(self.d_errors_i[index][i] * self.curves_i[index][i])
            d_weights.append(self._unpropagate(i, index, self.weights_i[index + 1][i]))
        error = self.d_errors_i[last][i]
        if self.residual:
            parts = (self.saved.kept.before[self.part][i], self.inputs_i[0][i], self.v[i])
            d, d_k, self.d_v[i] = torch.func.vjp(residual_error, *parts)[1](error)
            self.d_inputs_i[0][i].add_(d_k)
        else:
            self.d_v[i] = error
            d = error.neg()
        for index in range(last, -1, -1):
            if index < last:
                d = d_before[index].addcmul_(self.d_inputs_i[index + 1][i], self.derivatives_i[index][i])
            a, weight = self.inputs_i[index][i], self.weights_i[index][i]
            if self.keeps:
                self._unkeep(i, index, d * torch.bmm(a, weight))
                d = d * self.keeps[index][i]
            self.d_inputs_i[index][i].baddbmm_(d, weight.mT)
            d_weight = d_weights[index - 1].baddbmm_(a.mT, d) if index else torch.bmm(a.mT, d)
            self.d_states_i[index][i].chunk(2, -1)[0].add_(d_weight)

    def _unwrite(self, i: int, index: int) -> None:
        """Back over a layer's write, to its input, its error and [W | S] before the chunk."""
        d, into, share = self.d_states_i[index][i + 1], self.d_states_i[index][i], self.shares_i[index][i]
        pulled = torch.bmm(self.inputs_i[index][i], d, out=self.pulled_i[index][i])
        onto_w, onto_s = pulled.chunk(2, -1)
        self.d_errors_i[index][i].addcmul_(onto_w, share[:, :, 0]).addcmul_(onto_s, share[:, :, 1])
        self.d_inputs_i[index][i].baddbmm_(self.written_i[index][i], d.mT)
        (dw, ds), (into_w, into_s), mix = d.chunk(2, -1), into.chunk(2, -1), self.mix_i[index][i]
        torch.mul(dw, mix[:, 0, 0], out=into_w)
        torch.mul(dw, mix[:, 0, 1], out=into_s).addcmul_(ds, mix[:, 1, 1])
        into.baddbmm_(self.hs_i[index][i].mT, self.onto_i[index][i])

    def _unpropagate(self, i: int, index: int, weight: Tensor) -> Tensor:
        """Back over `e_l = ((e_{l+1} o kappa) W_{l+1}^T) o s'(z_l)`, to the next layer's error; gives its weights' gradient."""
        d_up = self.d_errors_i[index][i] * self.derivatives_i[index][i]
        after, error = self.d_errors_i[index + 1][i], self.errors_i[index + 1][i]
        if not self.keeps:
            after.baddbmm_(d_up, weight)
            return torch.bmm(d_up.mT, error)
        keep, d_kept = self.keeps[index + 1][i], torch.bmm(d_up, weight)
        self._unkeep(i, index + 1, d_kept * error)
        after.addcmul_(d_kept, keep)
        return torch.bmm(d_up.mT, error * keep)

    def _unkeep(self, i: int, index: int, d: Tensor) -> None:
        self.d_keeps[index][i] += narrowed(d, self.keeps[index])

    def unshare(self, d_ends: list[Tensor]) -> None:
        """Back over what tokens' writes and the old [W | S] have in the new."""
        for index in range(self.depth):
            d_end, share = d_ends[0 if len(d_ends) == 1 else index], self.shares[index]
            d = self.pulled[index].unflatten(-1, (2, -1)).mul_(self.errors[index].unsqueeze(-2))
            d_end[:, :, :, 2:] += narrowed(d, share).transpose(2, 3)
            (w, s), (dw, ds) = self.starts[index].chunk(2, -1), self.d_states[index][1:].chunk(2, -1)
            over = (-2, -1) if share.shape[-1] == 1 else -2
            for row, column, left, right in ((0, 0, dw, w), (0, 1, dw, s), (1, 1, ds, s)):
                part = d_end[:, :, row, column]
                part += (left * right).sum(over).view_as(part)


def _by_chunk(layers: Iterable[Tensor]) -> list[tuple[Tensor, ...]]:
    """Per layer, its chunks, looked up once."""
    return [x.unbind() for x in layers]


def spread_errors(e: Tensor, shares: Tensor) -> Tensor:
    """Errors [..., out] beside one another by their coefficients [..., 2, c] in memory and surprise: [..., 2 out]."""
    return (e.unsqueeze(-2) * shares).flatten(-2)


def narrowed(d: Tensor, like: Tensor) -> Tensor:
    """Gradient of what was broadcast over the last axis, where `like` has 1 there."""
    return d.sum(-1, keepdim=True) if like.shape[-1] == 1 else d
