"""Titans' memory compiled: the law token by token, a matrix or layers of them. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import expect, kind_of, library, pointer, whole_vectors, without_autocast
from models.ops.neural_memory.native_step import SOURCE, Text, built_for, step
from models.ops.neural_memory.recurrence import Rule, State, Weights, recurrence, resume, suspend
from models.ops.providers import NotCovered
from models.ops.recording import Library

LARGEST, AGED = 1 << 15, 1 << 20  # numbers of a head's weights, and those times the tokens of an anchor (up to 64)
IN_PIECES = SOURCE.parent / "deep" / "native_pieces.c"
PIECE = 32  # tokens of a piece there
LEAST, FROM = 16, 1 << 12  # tokens of a chunk, numbers of a head's weights, from which on it is the faster


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("q", "k", "v", "momentum", "rate", "keep")]


class _Form(NamedTuple):
    """Which memory is compiled, and where its text has its anchors."""

    depth: int
    hidden: int
    gates: int
    rule: Rule
    last: int  # the token before which the state that is handed out stands
    in_pieces: bool  # products of matrices for many tokens at once, not the law token by token


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    momentum: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: Rule,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.neural_memory.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered for a residual memory, one whose channels forget at paces of their own, layers of several hidden widths,
    off the CPU, and where no library can be built.
    """
    dtype, kind, depth = q.dtype, kind_of(q), len(initial)
    hidden = {weight.shape[-1] for weight in initial[:-1]} or {v.shape[-1]}
    gates = max(gate.shape[3] if gate.dim() == 4 else 1 for gate in (momentum, rate, keep))
    if rule.residual or len(hidden) > 1 or gates not in (1, depth):
        raise NotCovered(
            "The compiled memory has no residual, hidden layers of one width, and gates for each head or each of its layers; "
            "use provider chunked."
        )
    if not q.shape[1] or not v.numel():
        return recurrence(q, k, v, momentum=momentum, rate=rate, keep=keep, initial=initial, rule=rule, state=state)
    if (found := step(q, (k, v, momentum, rate, keep), gates, rule, state)) is not None:
        return found
    with without_autocast():
        tokens = tuple(x.to(kind) for x in (k, v, momentum, rate, keep))
        weights, surprise, tokens, past = resume(tokens, initial, state)
        before = tuple(w.to(kind) for w in (*weights, *surprise))
        q = q.to(kind)
        q = torch.cat([q.new_zeros(q.shape[0], past, *q.shape[2:]), q], 1) if past else q
        total = q.shape[1]
        trains = torch.is_grad_enabled() and any(x.requires_grad for x in (q, *tokens, *before))
        in_pieces = (trains or total >= PIECE) and _goes_in_pieces(initial, rule, kind)
        form = _Form(depth, hidden.pop(), gates, rule, total // rule.chunk * rule.chunk, in_pieces)
        given = (q, *tokens[:2], *(_gates(x, gates) for x in tokens[2:]), *before)
        _expect(*given[:6], given[6:])
        if trains:
            y, *after = _Memory.apply(form, *given)
        else:
            y, after, _ = _forward(form, *given, train=False)
    y = y[:, past:] if past else y
    return y.to(dtype), suspend(tuple(after[:depth]), tuple(after[depth:]), tokens, rule.chunk)


def is_slower(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    momentum: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: Rule,
    state: State | None = None,
) -> bool:
    """Whether training is faster in chunks: weights so large that their states leave the second cache (docs/speed.md), of a
    memory that does not go in pieces.
    """
    inputs = (q, k, v, momentum, rate, keep, *initial)
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    numbers = _numbers(initial)
    return trains and is_slower_at(numbers, rule.chunk) and not _goes_in_pieces(initial, rule, q.dtype)


def _numbers(weights: Weights) -> int:
    return sum(weight[0].numel() for weight in weights)


def _goes_in_pieces(initial: Weights, rule: Rule, dtype: torch.dtype) -> bool:
    """Whether many tokens at once (`deep/native_pieces.c`) are faster than one after another, and covered: layers of some size,
    whose widths fill vectors, and anchors that are not too near; of one matrix, any anchors.
    """
    if rule.decayed or (rule.chunk < LEAST and len(initial) > 1) or _numbers(initial) < FROM:
        return False
    kind = torch.float64 if dtype == torch.float64 else torch.float32  # half precision is computed in it
    widths = (initial[0].shape[-2], *(weight.shape[-1] for weight in initial))
    return all(whole_vectors(width, kind) == width for width in widths)


def is_slower_at(numbers: int, chunk: int) -> bool:
    """Whether the law token by token takes longer than chunks to train a memory of so many numbers a head."""
    return numbers > LARGEST or numbers * min(chunk, 64) > AGED


def _gates(gate: Tensor, count: int) -> Tensor:
    """[b, t, h] or [b, t, h, 1 or layers] -> [b, t, h, count]."""
    gate = gate if gate.dim() == 4 else gate[..., None]
    return gate.expand(*gate.shape[:3], count)


def _expect(q, k, v, momentum, rate, keep, before: Weights) -> None:
    batch, time, heads, keys = q.shape
    depth = len(before) // 2
    widths = [keys, *(weight.shape[3] for weight in before[:depth])]
    expect(k=(k, q.shape), v=(v, (batch, time, heads, widths[-1])))
    gates = (batch, time, heads, momentum.shape[3])
    expect(momentum=(momentum, gates), rate=(rate, gates), keep=(keep, gates))
    for i, weight in enumerate(before):
        own = f"weights[{i}]" if i < depth else f"surprise[{i - depth}]"
        expect(**{own: (weight, (batch, heads, *widths[i % depth : i % depth + 2]))})


def _joined(before: Sequence[Tensor]) -> Tensor:
    """[batch, heads, 2, numbers]: all weights side by side, then all surprise."""
    depth = len(before) // 2
    return torch.stack([torch.cat([w.flatten(2) for w in part], -1) for part in (before[:depth], before[depth:])], 2)


def _parted(state: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """What `_joined` joined, each matrix by itself."""
    sizes = [shape[2] * shape[3] for shape in shapes[: len(shapes) // 2]]
    parts = [part for half in state.unbind(2) for part in half.split(sizes, -1)]
    return [part.unflatten(-1, shape[2:]).contiguous() for part, shape in zip(parts, shapes, strict=True)]


def _built(q: Tensor, v: Tensor, form: _Form) -> Library:
    macros = built_for(q.shape[-1], form.hidden, v.shape[-1], form.depth, form.gates, form.rule, q.dtype)
    if form.in_pieces:
        built = library(IN_PIECES, q.dtype, **macros, PIECE=PIECE, NEAR=form.rule.chunk < LEAST)
    else:
        built = library(SOURCE, q.dtype, **macros)
    built.pieces.returns(ctypes.c_long)
    return built


def _text(inputs: tuple[Tensor, ...], form: _Form) -> Text:
    return Text(*inputs[0].shape[:3], form.rule.chunk, form.last, *(pointer(x) for x in inputs))


def _forward(form: _Form, q, k, v, momentum, rate, keep, *before, train: bool) -> tuple[Tensor, list[Tensor], tuple]:
    """y, the state at the last anchor, and what the backward pass needs: the inputs as C reads them, traces, states."""
    inputs = tuple(x.contiguous() for x in (q, k, v, momentum, rate, keep))
    state, y = _joined(before), torch.empty_like(inputs[2])
    built, (batch, time, heads), traces, kept = _built(q, v, form), q.shape[:3], None, None
    if train:
        traces = y.new_empty(batch, time, heads, 3 * (form.depth - 1) * form.hidden + v.shape[-1])
        pieces = built.pieces(ctypes.c_long(time), ctypes.c_long(form.rule.chunk))
        kept = y.new_empty(batch, heads, pieces, *state.shape[2:])
    built.forward(
        ctypes.byref(_text(inputs, form)), pointer(state), pointer(y), pointer(traces), pointer(kept),
        torch.get_num_threads(),
    )  # fmt: skip
    return y, _parted(state, [x.shape for x in before]), (*inputs, traces, kept)


class _Memory(torch.autograd.Function):
    """`apply(form, q, k, v, momentum, rate, keep, *weights, *surprise)` -> y, and weights and surprise at the last anchor."""

    @staticmethod
    def forward(ctx: Any, form: _Form, *given):
        y, state, kept = _forward(form, *given, train=True)
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(False)
        ctx.form, ctx.shapes = form, [x.shape for x in state]
        return y, *state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor | None, *dlast: Tensor | None):
        *inputs, traces, kept = ctx.saved_tensors
        v = inputs[2]
        dstate = _joined([v.new_zeros(shape) if x is None else x for x, shape in zip(dlast, ctx.shapes, strict=True)])
        dy = torch.zeros_like(v) if dy is None else dy.contiguous()
        slopes = [torch.empty_like(x) for x in inputs]
        _built(inputs[0], v, ctx.form).backward(
            ctypes.byref(_text(tuple(inputs), ctx.form)), pointer(traces), pointer(kept), pointer(dy), pointer(dstate),
            ctypes.byref(_Gradients(*(pointer(x) for x in slopes))), torch.get_num_threads(),
        )  # fmt: skip
        return None, *slopes, *_parted(dstate, ctx.shapes)
