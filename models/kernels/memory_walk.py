"""The deep memory's walk over its chunks, one gradient anchor each, with its backward walk written out.

At the start of a chunk its keys run through the weights W_1 .. W_L of that moment, and their errors run back:

    a_0 = K,      z_l = (a_{l-1} W_l) o kappa_l,   a_l = s(z_l)
    e_L = V - z_L,      e_l = ((e_{l+1} o kappa_{l+1}) W_{l+1}^T) o s'(z_l)

(kappa is 1, or what the token keeps where gradients are taken at the decayed memory.) Then every layer is written:

    W <- g W + c S + a^T (e o A),   S <- p S + a^T (e o P)              A, P: the shares of a token's write at the chunk's end

Only this needs one chunk after another. All that is one formula for all chunks (what queries read, the shares, the gradients of
gates and shares) is computed outside of the walk or after it. Blocks n come first here, then groups g (batch times heads).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.neural_memory import ACTIVATIONS, NORM_EPSILON, Rule

Tensors = tuple[Tensor, ...]


def walk(
    k: Tensor, v: Tensor, states: Tensors, writes: Tensors, mix: Tensors, keeps: Tensors | None, rule: Rule
) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """Per layer: inputs a_{l-1} [n, g, size, in], errors e_l [n, g, size, out], [W | S] before each chunk, and after the last.

    Shapes: k [n, g, size, in]; v [n, g, size, out]; per layer: `states` [W | S] [g, in, 2 out]; `writes` (A, P)
    [n, g, size, 2, 1 or out]; `mix` (g, c, p) [n, g, 3, 1 or out]; `keeps` kappa [n, g, size, 1 or out], or None for 1.
    """
    depth = len(states)
    parts = _Walk.apply(rule, depth, k, v, *states, *writes, *mix, *(keeps or ()))
    return (k, *parts[: depth - 1]), *(parts[i * depth - 1 : (i + 1) * depth - 1] for i in (1, 2, 3))


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rule: Rule, depth: int, k: Tensor, v: Tensor, *rest: Tensor) -> Tensors:
        states, writes, mix, keeps = (rest[i * depth : (i + 1) * depth] for i in range(4))
        starts = [state.new_empty(len(k) + 1, *state.shape) for state in states]
        record: list[list[Tensors]] = [[], [], [], []]
        for kept, state in zip(starts, states, strict=True):
            kept[0] = state
        for n in range(len(k)):
            weights = [kept[n].chunk(2, -1)[0] for kept in starts]
            compared = _compare(weights, k[n], v[n], [keep[n] for keep in keeps], rule)
            for column, part in zip(record, compared, strict=True):
                column.append(part)
            inputs, _, _, errors = compared
            for kept, a, e, share, three in zip(starts, inputs, errors, writes, mix, strict=True):
                _write(kept[n + 1], kept[n], a, e, share[n], three[n])
        inputs, before, up, errors = (_stacked(column) for column in record)
        ctx.save_for_backward(k, v, *inputs[1:], *before, *up, *errors, *starts, *writes, *mix, *keeps)
        ctx.rule, ctx.depth = rule, depth
        return (*inputs[1:], *errors, *(start[:-1] for start in starts), *(start[-1] for start in starts))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        k, v, *rest = ctx.saved_tensors
        backward = _Backward(ctx.rule, ctx.depth, k, v, rest, grads)
        for n in range(len(k) - 1, -1, -1):
            backward.step(n)
        return (None, None, *backward.gradients())


def _stacked(rows: list[Tensors]) -> Tensors:
    """Per layer, the chunks' parts [g, ...] as one [n, g, ...]."""
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


def _compare(weights: list[Tensor], k: Tensor, v: Tensor, keeps: list[Tensor], rule: Rule) -> tuple[Tensors, ...]:
    """Of one chunk: inputs a_{l-1}, pre-activations z_l, what the errors were before s', and the errors e_l."""
    inputs, before, up = [k], [], []
    for index, weight in enumerate(weights):
        z = torch.bmm(inputs[index], weight)
        before.append(z * keeps[index] if keeps else z)
        if index + 1 < len(weights):
            inputs.append(ACTIVATIONS[rule.activation](before[index]))
    errors = [residual_error(before[-1], k, v) if rule.residual else v - before[-1]]
    for index in range(len(weights) - 1, 0, -1):
        error = errors[0] * keeps[index] if keeps else errors[0]
        up.insert(0, torch.bmm(error, weights[index].mT))
        errors.insert(0, _times_slope(up[0], before[index - 1], rule))
    return tuple(inputs), tuple(before), tuple(up), tuple(errors)


def _write(after: Tensor, state: Tensor, a: Tensor, e: Tensor, share: Tensor, mix: Tensor) -> None:
    """[W | S] after a chunk whose tokens write a^T e, into `after`."""
    (w, s), (new_w, new_s) = state.chunk(2, -1), after.chunk(2, -1)
    g, c, p = mix.unsqueeze(2).unbind(1)
    torch.mul(w, g, out=new_w).addcmul_(s, c)
    torch.mul(s, p, out=new_s)
    after.baddbmm_(a.mT, (e.unsqueeze(-2) * share).flatten(-2))


class _Backward:
    """The gradients of one walk: `step` goes back over a chunk, `gradients` gathers what all chunks share."""

    def __init__(self, rule: Rule, depth: int, k: Tensor, v: Tensor, saved: list[Tensor], grads: Tensors):
        self.rule, self.depth, self.k, self.v = rule, depth, k, v
        counts = [depth - 1, depth, depth - 1, *[depth] * 4, len(saved) - 7 * depth + 2]
        ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        parts = [saved[end - count : end] for end, count in zip(ends, counts, strict=True)]
        inputs, self.before, up, self.errors, self.starts, self.writes, self.mix, self.keeps = parts
        self.inputs = [k, *inputs]
        self.weights = [start.chunk(2, -1)[0] for start in self.starts]
        self.kept = [e * keep for e, keep in zip(self.errors, self.keeps, strict=True)] if self.keeps else self.errors
        self.written = [
            (e.unsqueeze(-2) * share).flatten(-2) for e, share in zip(self.errors, self.writes, strict=True)
        ]
        hidden = self.before[: depth - 1]
        self.slopes = [_times_slope(torch.ones_like(z), z, rule) for z in hidden]
        self.bends = [part * _bend(z, rule) for part, z in zip(up, hidden, strict=True)]
        # Contiguous copies: a product added to anything else is computed group by group.
        copies = [d.clone(memory_format=torch.contiguous_format) for d in grads[: 2 * depth - 1]]
        self.d_inputs = [torch.zeros_like(k), *copies[: depth - 1]]
        self.d_errors = copies[depth - 1 : 2 * depth - 1]
        befores, lasts = grads[2 * depth - 1 : 3 * depth - 1], grads[3 * depth - 1 :]
        # Row n + 1 is whole when step n begins.
        self.d_starts = [torch.cat([d, last[None]]) for d, last in zip(befores, lasts, strict=True)]
        self.d_before = [torch.empty_like(z) for z in self.before]
        self.d_written = [torch.empty_like(part) for part in self.written]
        self.d_kept = [torch.zeros_like(e) for e in self.errors] if self.keeps else []
        self.d_v = torch.empty_like(v)

    def step(self, n: int) -> None:
        for index in range(self.depth):
            self._unwrite(n, index)
        d_weights = [self._unpropagate(n, index) for index in range(self.depth - 1)]
        error, before = self.d_errors[-1][n], self.d_before[-1]
        if self.rule.residual:
            parts = (self.before[-1][n], self.k[n], self.v[n])
            before[n], d_k, self.d_v[n] = torch.func.vjp(residual_error, *parts)[1](error)
            self.d_inputs[0][n] += d_k
        else:
            self.d_v[n] = error
            torch.neg(error, out=before[n])
        for index in range(self.depth - 1, -1, -1):
            d = self.d_before[index][n]
            if index + 1 < self.depth:
                d.addcmul_(self.d_inputs[index + 1][n], self.slopes[index][n])
            if self.keeps:
                d = d * self.keeps[index][n]
            self.d_inputs[index][n].baddbmm_(d, self.weights[index][n].mT)
            a = self.inputs[index][n].mT
            d_weight = d_weights[index - 1].baddbmm_(a, d) if index else torch.bmm(a, d)
            self.d_starts[index][n].chunk(2, -1)[0].add_(d_weight)

    def _unwrite(self, n: int, index: int) -> None:
        """Back over a layer's write: to its input, its error and [W | S] before the chunk."""
        d, share, error = self.d_starts[index][n + 1], self.writes[index][n], self.d_errors[index][n]
        pulled = torch.bmm(self.inputs[index][n], d, out=self.d_written[index][n])
        onto_w, onto_s = pulled.chunk(2, -1)
        error.addcmul_(onto_w, share[:, :, 0]).addcmul_(onto_s, share[:, :, 1])
        self.d_inputs[index][n].baddbmm_(self.written[index][n], d.mT)
        g, c, p = self.mix[index][n].unsqueeze(2).unbind(1)
        (dw, ds), (into_w, into_s) = d.chunk(2, -1), self.d_starts[index][n].chunk(2, -1)
        into_w.addcmul_(dw, g)
        into_s.addcmul_(dw, c).addcmul_(ds, p)

    def _unpropagate(self, n: int, index: int) -> Tensor:
        """Back over `e_l = ((e_{l+1} o kappa) W_{l+1}^T) o s'(z_l)`, to z_l and the next layer's error.

        Returns the gradient of the next layer's weights.
        """
        error, after = self.d_errors[index][n], self.d_errors[index + 1][n]
        torch.mul(error, self.bends[index][n], out=self.d_before[index][n])
        d_up = error * self.slopes[index][n]
        if self.keeps:
            d_kept = torch.bmm(d_up, self.weights[index + 1][n], out=self.d_kept[index + 1][n])
            after.addcmul_(d_kept, self.keeps[index + 1][n])
        else:
            after.baddbmm_(d_up, self.weights[index + 1][n])
        return torch.bmm(d_up.mT, self.kept[index + 1][n])

    def gradients(self) -> list[Tensor]:
        """Of k, v, and per layer the first states, writes, mix and keeps."""
        d_writes, d_mix, d_keeps = [], [], []
        for index in range(self.depth):
            error, d_written = self.errors[index], self.d_written[index]
            d = d_written.unflatten(-1, (2, -1)) * error.unsqueeze(-2)
            d_writes.append(_narrowed(d, self.writes[index]))
            (w, s), (dw, ds) = self.starts[index][:-1].chunk(2, -1), self.d_starts[index][1:].chunk(2, -1)
            over = (-2, -1) if self.mix[index].shape[-1] == 1 else -2
            d = torch.stack([(left * right).sum(over) for left, right in ((dw, w), (dw, s), (ds, s))], 2)
            d_mix.append(d.view_as(self.mix[index]))
            if self.keeps:
                plain = self.inputs[index] @ self.weights[index][:-1]
                d = self.d_kept[index] * error + self.d_before[index] * plain
                d_keeps.append(_narrowed(d, self.keeps[index]))
        return [self.d_inputs[0], self.d_v, *(d[0] for d in self.d_starts), *d_writes, *d_mix, *d_keeps]


def _narrowed(d: Tensor, like: Tensor) -> Tensor:
    return d.sum(-1, keepdim=True) if like.shape[-1] == 1 else d


def residual_error(z: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Negative gradient of `1/2 |k + LN(z) - v|^2` with respect to z: LN's backward of `v - k - LN(z)`."""
    centred = z - z.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + NORM_EPSILON)
    n = centred * scale
    up = v - k - n
    return (up - up.mean(-1, keepdim=True) - n * (up * n).mean(-1, keepdim=True)) * scale


def _times_slope(x: Tensor, z: Tensor, rule: Rule) -> Tensor:
    """`x o s'(z)`, in one kernel."""
    if rule.activation == "gelu":
        return torch.ops.aten.gelu_backward(x, z)
    return torch.ops.aten.silu_backward(x, z)


def _bend(z: Tensor, rule: Rule) -> Tensor:
    """`s''(z)`."""
    if rule.activation == "gelu":
        return torch.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi)) * (2 - z * z)
    below = torch.sigmoid(z)
    return below * (1 - below) * (2 + z * (1 - 2 * below))
