"""Memory as context over whole segments in one compiled call, forward and back. The C lies in `native.c`.

Of each segment, with M the memory before it (Titans, Behrouz et al. 2025, arXiv 2501.00663, eqs. 21-25):

    recall   h = RMSNorm(M(q))                        of each head, without gains
    attend   y = x + W_o Attn([P | R h | S])          token i sees P, and of h and S the rows up to its own
    learn    u = U y                                  the memory's q, k, v and gates' logits; M <- M(u)
    read     RMSNorm(M_i(u_i))

Letters: b batch, t time, h heads, d channels a head, c columns a head. What does not hang on the segment before is given, made
for the whole text: its queries to the memory and attention's q, k and v; R is one map where the layer has two with nothing
between them.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import expect, lanes, library, pointer
from models.ops.neural_memory.native_step import built_for
from models.ops.neural_memory.recurrence import Rule
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")


@dataclass(frozen=True)
class Form:
    """What is fixed: the segments, the memory that is compiled, and which gates it has."""

    segment: int
    pool: int  # queries of one recalled row
    depth: int
    hidden: int
    width: int
    head: int  # d
    gates: int  # numbers a head in each gate
    rule: Rule
    ceiling: float  # of the momentum
    momentum: bool = True
    forget: bool = True
    unit_values: bool = True

    @property
    def gate_count(self) -> int:
        """Logits a head."""
        return self.gates * (1 + self.momentum + self.forget)

    def columns(self, kind: torch.dtype) -> int:
        """c: a head's q, k, v and logits, filled up to whole vectors."""
        used = 3 * self.head + self.gate_count
        return used + -used % self.lanes(kind)

    def lanes(self, kind: torch.dtype) -> int:
        """Numbers side by side."""
        return lanes(math.gcd(self.hidden, self.head, self.width), kind)


class Given(NamedTuple):
    """What the loop is given.

    x [b, t, width], None without the residual connection; heard [b, t, 4, h, d], the queries to the memory before SiLU and norm,
    and attention's q, k, v before rotary positions; prefix_k, prefix_v [p, h, d] behind them; bias [h c] of u; taps
    [h, kernel, 3 d], the newest input's last; bound of the rate [h]; recall R [h 2d, h d], keys and values of a head behind each
    other; out W_o [width, h d]; update U [h c, width]; tails, what the convolutions heard last, [b, kernel - 1, h c]; state
    [b, h, 2, weights], the memory and its surprise.
    """

    x: Tensor | None
    heard: Tensor
    prefix_k: Tensor
    prefix_v: Tensor
    bias: Tensor
    taps: Tensor
    bound: Tensor
    recall: Tensor
    out: Tensor
    update: Tensor
    tails: Tensor
    state: Tensor


class _Context(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_long) for name in ("batch", "time", "heads", "width", "segment", "chunk", "pool", "prefix")
    ]
    _fields_ += [("ceiling", ctypes.c_double)]
    _fields_ += [
        (name, ctypes.c_void_p)
        for name in (
            "x", "heard", "prefix_k", "prefix_v", "bias", "taps", "bound", "recall", "out", "update",
            "cosine", "sine",
        )
    ]  # fmt: skip


class Passed(NamedTuple):
    """What a pass writes: `text.h` says what each is."""

    y: Tensor
    attended: Tensor
    reads: Tensor
    read_rms: Tensor
    recalled: Tensor
    rms: Tensor
    rows: Tensor
    made: Tensor
    traces: Tensor | None
    kept: Tensor | None
    state: Tensor | None


class _Passed(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in Passed._fields]


class _Sloped(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "y", "reads", "made", "rows", "heard", "prefix_k", "prefix_v", "taps", "bound", "state"
        )
    ]  # fmt: skip


def read_segments(given: Given, form: Form) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y [b, t, width], what each token reads [b, t, h, d] brought to unit RMS, the new tails and the new state.

    Texts are of whole segments, all in float32 or all in float64, on the CPU. Raises NotCovered where no library can be built.
    """
    _expect(given, form)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
        return _Segments.apply(*given, form)
    return _forward(given, form, train=False)[0]


def _expect(given: Given, form: Form) -> None:
    batch, time, _, heads, head = given.heard.shape
    kernel, columns, prefix = given.taps.shape[1], form.columns(given.heard.dtype), given.prefix_k.shape[0]
    widths = [head, *[form.hidden] * (form.depth - 1), head]
    every, width = heads * head, form.width
    shapes = {
        "x": (batch, time, width), "heard": (batch, time, 4, heads, head),
        "prefix_k": (prefix, heads, head), "prefix_v": (prefix, heads, head), "bias": (heads * columns,),
        "recall": (2 * every, every), "out": (width, every), "update": (heads * columns, width),
        "taps": (heads, kernel, 3 * head), "bound": (heads,), "tails": (batch, kernel - 1, heads * columns),
        "state": (batch, heads, 2, sum(a * b for a, b in zip(widths, widths[1:], strict=False))),
    }  # fmt: skip
    expect(**{name: (x, shapes[name]) for name, x in given._asdict().items()})
    if (
        time % form.segment
        or head != form.head
        or any(x is not None and x.dtype is not given.heard.dtype for x in given)
    ):
        raise ValueError(f"{time} tokens, {head} channels a head: not whole segments of one dtype as {form} has them.")


def built(form: Form, kernel: int, kind: torch.dtype) -> Library:
    """The library for convolutions of so many inputs and numbers of a kind. Raises NotCovered where none can be built."""
    macros = built_for(form.head, form.hidden, form.head, form.depth, form.gates, form.rule, kind)
    gates = {"MOMENTUM": form.momentum, "FORGET": form.forget, "UNIT": 2 + form.unit_values}
    macros |= {"LANES": form.lanes(kind), "KERNEL": kernel}
    found = library(SOURCE, kind, **macros, **gates)
    found.pieces.returns(ctypes.c_long)
    return found


def _turns(form: Form, prefix: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a segment's places, behind the prefix's, as `models.layers.rotary` has them: [segment, d / 2]."""
    half = form.head // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.outer(prefix + torch.arange(form.segment, dtype=torch.float64), frequency)
    return angle.cos().to(kind), angle.sin().to(kind)


def _context(given: Given, form: Form, turns: tuple[Tensor, Tensor]) -> _Context:
    batch, time, _, heads, _ = given.heard.shape
    return _Context(
        batch, time, heads, form.width, form.segment, form.rule.chunk, form.pool, len(given.prefix_k), form.ceiling,
        *(pointer(x) for x in (*given[:10], *turns)),
    )  # fmt: skip


def _room(given: Given, form: Form, pieces: int) -> Passed:
    """Where a pass writes; with `pieces` of a segment, for a backward pass too."""
    (batch, time, _, heads, head), rows, new = (
        given.heard.shape,
        given.heard.shape[1] // form.pool,
        given.heard.new_empty,
    )
    trace = 3 * (form.depth - 1) * form.hidden + head
    traces = new(batch, heads, time, trace) if pieces else None
    kept = new(batch, heads, time // form.segment * pieces, *given.state.shape[2:]) if pieces else None
    made = new(batch, given.tails.shape[1] + time, given.tails.shape[2])
    made[:, : given.tails.shape[1]] = given.tails
    answers = new(batch, time, heads, head), new(batch, time, heads)
    recalled = new(batch, rows, heads, head), new(batch, rows, heads), new(batch, rows, heads, 2 * head)
    attended = new(batch, time, heads, head)
    return Passed(new(batch, time, form.width), attended, *answers, *recalled, made, traces, kept, given.state.clone())


def _forward(given: Given, form: Form, train: bool) -> tuple[tuple[Tensor, ...], tuple]:
    """y, reads, tails and state, and what the backward pass needs."""
    given = Given(*(None if x is None else x.contiguous() for x in given))
    compiled = built(form, given.taps.shape[1], given.heard.dtype)
    pieces = compiled.pieces(ctypes.c_long(form.segment), ctypes.c_long(form.rule.chunk)) if train else 0
    passed, turns = _room(given, form, pieces), _turns(form, len(given.prefix_k), given.heard.dtype)
    compiled.read_segments(
        ctypes.byref(_context(given, form, turns)),
        ctypes.byref(_Passed(*map(pointer, passed))),
        torch.get_num_threads(),
    )
    tails = passed.made[:, given.heard.shape[1] :].clone()
    return (passed.y, passed.reads, tails, passed.state), (*given[1:10], *turns, *passed[:-1])


class _Segments(torch.autograd.Function):
    """`apply(*given, form)` -> y, reads, tails and state."""

    @staticmethod
    def forward(ctx: Any, *inputs):
        found, kept = _forward(Given(*inputs[:-1]), inputs[-1], train=True)
        ctx.save_for_backward(*kept)
        ctx.form = inputs[-1]
        return found

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, d_reads: Tensor, d_tails: Tensor, d_state: Tensor):
        saved, form = ctx.saved_tensors, ctx.form
        given, turns, passed = Given(None, *saved[:9], None, None), saved[9:11], Passed(*saved[11:], None)
        batch, time, _, heads, head = given.heard.shape
        before = given.taps.shape[1] - 1
        dy, d_state = (x.clone(memory_format=torch.contiguous_format) for x in (dy, d_state))  # they grow in the call
        d_made = torch.zeros_like(passed.made)
        d_made.unflatten(-1, (heads, -1))[:, time:, :, : 3 * head] = d_tails.unflatten(-1, (heads, -1))[..., : 3 * head]
        d_rows, d_heard = (torch.empty_like(x) for x in (passed.rows, given.heard))
        shared = [x.new_zeros(batch, *x.shape) for x in (given.prefix_k, given.prefix_v, given.taps, given.bound)]
        slopes = (dy, d_reads.contiguous(), d_made, d_rows, d_heard, *shared, d_state)
        built(form, before + 1, given.heard.dtype).segments_back(
            ctypes.byref(_context(given, form, turns)), ctypes.byref(_Passed(*map(pointer, passed))),
            ctypes.byref(_Sloped(*map(pointer, slopes))), torch.get_num_threads(),
        )  # fmt: skip
        du = d_made[:, before:]
        maps = [_over_tokens(*pair) for pair in ((d_rows, passed.recalled), (dy, passed.attended), (du, passed.y))]
        prefix_k, prefix_v, taps, bound = (x.sum(0) for x in shared)
        dx = dy if ctx.needs_input_grad[0] else None
        return dx, d_heard, prefix_k, prefix_v, du.sum((0, 1)), taps, bound, *maps, d_made[:, :before], d_state, None


def _over_tokens(slope: Tensor, x: Tensor) -> Tensor:
    """A map's gradient [to, from] from that of what it made, [b, t, ..], and what it was given."""
    return slope.flatten(2).flatten(0, 1).T @ x.flatten(2).flatten(0, 1)
