"""Chunked memories compiled: `remember(...)` runs the C of `memory.c`, forward and backward, for the laws beside this file."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import expect, lanes, library, pointer
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("memory.c")
TOKENS = ("rate", "keep", "weight", "momentum", "threshold")  # one number a head and token
NAMES = ("q", "k", "aim", *TOKENS, "gain", "factor")
LAW = ("epsilon", "power", "sharpness", "norm", "norm_floor", "weight_floor", "mass")
# What is fixed when a library is built; see memory.c.
CHOICES = ("BIAS", "ACTIVATION", "RESIDUAL", "LOSS", "SCALED", "SIMPLEX", "ORTHOGONAL", "INNER")


class Form(NamedTuple):
    """Which memory is compiled: layers' widths, choices (0 where unnamed), numbers of the law, and how a text is cut."""

    widths: tuple[int, ...]
    choices: Mapping[str, int]
    law: Mapping[str, float]
    chunk: int
    window: int = 1
    place: int = 0  # of the first token in its chunk


class _Pointers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in NAMES]


def remember(given: Mapping[str, Tensor | None], state: Sequence[Tensor], form: Form) -> tuple[Tensor, list[Tensor]]:
    """What the queries read [b, t, h, out], and the weights (and sums) behind the text, as `state` has them, [b, h, in, out].

    `given` by NAMES, with None for what a law has not: q [b, t, h, in]; k and weight, aim and threshold with the window's tokens
    before the text; gates [b, t, h]; gain [h, out]; factor [chunk]. Raises NotCovered where no library can be built.
    """
    shapes = [x.shape[2:] for x in state]
    before = torch.cat([x.flatten(2) for x in state], -1)
    inputs = [given.get(name) for name in NAMES]
    _expect(inputs, before, form)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*inputs, before)):
        y, after = _Memory.apply(*inputs, before, form)
    else:
        y, after, _ = _forward(inputs, before, form, train=False)
    parts = after.split([math.prod(shape) for shape in shapes], -1)
    return y, [part.unflatten(-1, shape).clone() for part, shape in zip(parts, shapes, strict=True)]


def _expect(inputs: Sequence[Tensor | None], before: Tensor, form: Form) -> None:
    given = dict(zip(NAMES, inputs, strict=True))
    batch, time, heads, _ = given["q"].shape
    seen, widths = time + form.window - 1, form.widths
    shapes = {"q": (batch, time, heads, widths[0]), "k": (batch, seen, heads, widths[0])}
    shapes |= {name: (batch, time, heads) for name in ("rate", "keep", "momentum")}
    shapes |= {name: (batch, seen, heads) for name in ("weight", "threshold")}
    shapes |= {"aim": (batch, seen, heads, widths[-1]), "gain": (heads, widths[-1]), "factor": (form.chunk,)}
    expect(**{name: (x, shapes[name]) for name, x in given.items()})
    bias = form.choices.get("BIAS", 0)
    numbers = sum((a + bias) * b for a, b in zip(widths, widths[1:], strict=False))
    sums = 1 + (given["momentum"] is not None or bool(form.choices.get("INNER")))
    expect(state=(before, (batch, heads, sums * numbers)))


def _built(inputs: Sequence[Tensor | None], form: Form) -> Library:
    first, *hidden, last = form.widths
    inner = hidden[0] if hidden else last
    macros = {name: form.choices.get(name, 0) for name in CHOICES}
    momentum = macros["INNER"] or inputs[NAMES.index("momentum")] is not None
    kind = inputs[0].dtype
    together = lanes(math.gcd(inner, last), kind)
    return library(
        SOURCE, kind, K=first, H=inner, V=last, DEPTH=len(hidden) + 1, LANES=together, MOMENTUM=momentum, **macros
    )


def _text(inputs: Sequence[Tensor | None], form: Form) -> ctypes.Structure:
    real = ctypes.c_double if inputs[0].dtype == torch.float64 else ctypes.c_float

    class Text(ctypes.Structure):
        _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "chunk", "window", "place")]
        _fields_ += [(name, ctypes.c_void_p) for name in NAMES] + [(name, real) for name in LAW]

    law = (form.law.get(name, 0.0) for name in LAW)
    cut = (form.chunk, form.window, form.place)
    return Text(*inputs[0].shape[:3], *cut, *(pointer(x) for x in inputs), *law)


def _forward(inputs, before: Tensor, form: Form, train: bool) -> tuple[Tensor, Tensor, tuple]:
    """y, the state behind, and what the backward pass needs: the inputs as C reads them, traces, weights of all chunks."""
    inputs = [None if x is None else x.contiguous() for x in inputs]
    built, text, traces, kept = _built(inputs, form), _text(inputs, form), None, None
    (batch, time, heads), out = inputs[0].shape[:3], form.widths[-1]
    state, y = before.clone(memory_format=torch.contiguous_format), before.new_empty(batch, time, heads, out)
    if train:
        found = (ctypes.c_long * 5)()
        built.counts(ctypes.byref(text), found)
        trace, record, chunks = found[:3]
        traces = y.new_empty(batch, heads, chunks, trace)
        kept = y.new_empty(batch, heads, (chunks + 3) * record)
    built.forward(
        ctypes.byref(text), pointer(state), pointer(y), pointer(traces), pointer(kept), torch.get_num_threads()
    )
    return y, state, (*inputs, traces, kept)


class _Memory(torch.autograd.Function):
    """`apply(*inputs by NAMES, state, form)` -> y and the state behind."""

    @staticmethod
    def forward(ctx: Any, *given):
        *inputs, before, form = given
        y, state, kept = _forward(inputs, before, form, train=True)
        ctx.save_for_backward(*kept)
        ctx.form = form
        return y, state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        *inputs, traces, kept = ctx.saved_tensors
        dstate, dy = dlast.clone(memory_format=torch.contiguous_format), dy.contiguous()
        slopes = [None if x is None else _room(name, x, dy) for name, x in zip(NAMES, inputs, strict=True)]
        _built(inputs, ctx.form).backward(
            ctypes.byref(_text(inputs, ctx.form)), pointer(traces), pointer(kept), pointer(dy), pointer(dstate),
            ctypes.byref(_Pointers(*(pointer(x) for x in slopes))), torch.get_num_threads(),
        )  # fmt: skip
        for place, name in enumerate(NAMES):
            if slopes[place] is not None and name in ("gain", "factor"):
                slopes[place] = slopes[place].sum((0,) if name == "gain" else (0, 1))
        return *slopes, dstate, None


def _room(name: str, x: Tensor, dy: Tensor) -> Tensor:
    """Zeros for a gradient; what all rows of the batch share has one for each, so that threads do not meet."""
    batch, _, heads, out = dy.shape
    if name == "gain":
        return x.new_zeros(batch, heads, out)
    return x.new_zeros(batch, heads, len(x)) if name == "factor" else torch.zeros_like(x)
