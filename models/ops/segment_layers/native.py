"""All layers of a segment in one compiled call, forward and back, one segment after the other. The C lies in `native.c`.

Of each segment's rows x, with held rows M (memory slots, that all layers read) where a model has them:

    x <- x + W_out Attn(RMSNorm(x))                        causal, with rotary positions from the segment's beginning
    x <- x + W_find Attn(W_ask RMSNorm(x) -> W_held M)
    x <- x + W_down (silu(W_gate n) * W_rise n)            n = RMSNorm(x)

and behind the last layer unit(x), whose gain is the caller's. What becomes of the memory between two segments the caller says, in
PyTorch. A weight's gradient is one product for all segments. Letters: b batch, r rows of a segment, D width, m rows of memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.dense.rotary import circle
from models.ops.native_build import lanes, library, pointer, remembered
from models.ops.providers import NotCovered, note
from models.ops.recording import Library
from models.ops.segment_layers.rooms import Kept, Sizes, Slopes

SOURCE = Path(__file__).with_name("native.c")
KINDS = (torch.float32, torch.float64)
MOST = 256  # rows of a segment or a memory, whose shares of attention are kept


class Layer(NamedTuple):
    """A layer's weights, [out, in] as nn.Linear keeps them, and its norms' gains [D]; without a reading its four are None."""

    gain: Tensor
    query_key: Tensor  # [2 D, D]
    value: Tensor
    out: Tensor
    gate_up: Tensor  # [2 units, D], gates first
    feed_gain: Tensor
    down: Tensor
    ask_gain: Tensor | None = None
    ask: Tensor | None = None
    held: Tensor | None = None  # [2 D, D], keys first
    find: Tensor | None = None


# What becomes of the memory [b, m, D] behind a segment whose unit rows are [b, r, D].
Carry = Callable[[Tensor, Tensor], Tensor]


class Plan(NamedTuple):
    """What is not differentiated: heads, eps of the norms, and how the memory is carried.

    `read` says that all layers read the memory; else its rows stand before and behind each segment's and are part of them.
    """

    heads: int
    eps: float
    read: bool
    carry: Carry


def covers(x: Tensor, heads: int, longest: int) -> bool:
    """Whether rows like x [.., D] in segments of at most `longest` rows, the memory's among them, are compiled."""
    if not x.is_cpu or x.dtype not in KINDS or not x.numel() or torch.compiler.is_compiling():
        return False
    width = x.shape[-1] // heads
    return longest <= MOST and width % 2 == 0 and _built(width, x.dtype) is not None


def read_segments(
    x: Tensor, memory: Tensor, layers: Sequence[Layer], plan: Plan, carried: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Unit rows [n, b, r, D] of segments x [n, b, r, D] with the memory [b, m, D] before the first, and that behind the last.

    Where the memory stands around a segment, its rows are among the unit rows, r + 2 m of them. `carried` are the
    weights that `plan.carry` uses. All of one dtype; ask `covers` first.
    """
    note("native")
    weights = [weight for layer in layers for weight in layer]
    if torch.is_grad_enabled() and any(
        one is not None and one.requires_grad for one in (x, memory, *weights, *carried)
    ):
        return _Segments.apply(x, memory, plan, len(layers), *weights, *carried)
    found = _forward(x, memory, _parted(weights, len(layers))[0], plan, train=False)
    return found.units, found.memories[-1]


@remembered
def _built(width: int, kind: torch.dtype) -> Library | None:
    """The library for heads of `width` numbers of a kind; None where none can be built."""
    try:
        found = library(SOURCE, kind, LANES=lanes(width, kind))
    except NotCovered:
        return None
    found.packed_numbers.returns(ctypes.c_long)
    return found


@remembered
def _tables(rows: int, half: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [rows, half] of places 0 .. rows - 1."""
    return circle(0, rows, 1, half, kind, None)


class _Layers(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_long) for name in ("texts", "rows", "width", "heads", "units", "held", "depth", "apart")
    ]
    _fields_ += [("eps", ctypes.c_double)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("cosine", "sine", "weights", "gains", "maps")]
    _fields_ += [("kept", ctypes.c_void_p * len(Kept._fields)), ("slopes", ctypes.c_void_p * len(Slopes._fields))]
    _fields_ += [("kept_size", ctypes.c_long * len(Kept._fields)), ("slope_size", ctypes.c_long * len(Slopes._fields))]


class _Call:
    """Layers ready to be called, their weights packed for the way there or back; it holds all that C reads."""

    def __init__(self, layers: Sequence[Layer], sizes: Sizes, eps: float, kept: Kept, slopes: Slopes | None = None):
        kind, half = kept.unit.dtype, sizes.width // sizes.heads // 2
        self.compiled, self.threads = _built(2 * half, kind), torch.get_num_threads()
        below = sizes.units * sizes.width * kept.unit.element_size()
        maps = [(n.query_key, n.value, n.out, n.ask, n.held, n.find, n.gate_up, n.gate_up, n.down) for n in layers]
        places = [
            None if one is None else one.data_ptr() + below * (m == 7) for own in maps for m, one in enumerate(own)
        ]
        gains = [None if x is None else x.data_ptr() for n in layers for x in (n.gain, n.ask_gain, n.feed_gain)]
        self.holds = [(ctypes.c_void_p * len(one))(*one) for one in (places, gains)]
        self.holds += [layers, kept, slopes, *_tables(sizes.rows, half, kind)]
        given = [sizes.texts, sizes.rows, sizes.width, sizes.heads, sizes.units, sizes.held, len(layers)]
        x = self.layers = _Layers(*given, sizes.pieces, eps, *(one.data_ptr() for one in self.holds[-2:]))
        x.weights, x.gains = (ctypes.addressof(one) for one in self.holds[:2])
        for room, at, size in ((kept, x.kept, x.kept_size), (slopes or (), x.slopes, x.slope_size)):
            for n, one in enumerate(room):
                at[n], size[n] = (None, 0) if one is None else (one.data_ptr(), one[0, 0].numel())
        numbers = self.compiled.packed_numbers(ctypes.byref(x), int(slopes is not None))
        self.holds.append(maps := kept.unit.new_empty(numbers))
        x.maps = maps.data_ptr()
        self.compiled.pack(ctypes.byref(x), int(slopes is not None), self.threads)

    def read(self, piece: int, *tensors: Tensor | None) -> None:
        """One segment there: its rows and the held ones, contiguous, and where unit rows and their scale go."""
        self.compiled.read_layers(ctypes.byref(self.layers), ctypes.c_long(piece), *map(pointer, tensors), self.threads)

    def back(self, piece: int, *tensors: Tensor | None) -> None:
        """One segment back: the unit rows' gradient, they and their scale, and where those of what it was given go."""
        self.compiled.layers_back(ctypes.byref(self.layers), ctypes.c_long(piece), *map(pointer, tensors), self.threads)


class _Read(NamedTuple):
    """What a reading of all segments leaves."""

    units: Tensor  # [n, b, r, D]
    scale: Tensor
    memories: list[Tensor]  # before each segment and behind the last
    links: list[tuple[Tensor, Tensor, Tensor]]  # what each memory was made of, and it with its graph
    kept: Kept


def _forward(x: Tensor, memory: Tensor, layers: Sequence[Layer], plan: Plan, train: bool) -> _Read:
    sizes = _sizes(x, memory, layers, plan, len(x) if train else 1)
    kept = sizes.rooms(x)
    call = _Call(layers, sizes, plan.eps, kept)
    units, scale = (
        x.new_empty(len(x), *shape) for shape in ((len(x[0]), sizes.rows, sizes.width), kept.scale.shape[2:])
    )
    memories, links = [memory.contiguous()], []
    for piece, rows in enumerate(x.unbind(0)):
        memory = memories[-1]
        rows = rows.contiguous() if plan.read else torch.cat([memory, rows, memory], 1)
        call.read(piece if train else 0, rows, memory if plan.read else None, units[piece], scale[piece])
        with torch.set_grad_enabled(train):
            link = memory.detach().requires_grad_(train), units[piece].detach().requires_grad_(train)
            links.append((*link, plan.carry(*link)))
        memories.append(links[-1][-1].detach().contiguous())
    return _Read(units, scale, memories, links, kept)


def _sizes(x: Tensor, memory: Tensor, layers: Sequence[Layer], plan: Plan, pieces: int) -> Sizes:
    (_, texts, rows, width), count = x.shape, memory.shape[1]
    rows, held = (rows, count) if plan.read else (rows + 2 * count, 0)
    together = lanes(width // plan.heads, x.dtype)
    return Sizes(len(layers), pieces, texts, rows, held, width, plan.heads, layers[0].down.shape[1], together)


class _Segments(torch.autograd.Function):
    """`apply(x, memory, plan, depth, *weights of layers, *carried)` -> unit rows [n, b, r, D], memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, memory: Tensor, plan: Plan, depth: int, *weights: Tensor | None) -> Any:
        layers, carried = _parted(weights, depth)
        found = _forward(x, memory, layers, plan, train=True)
        ctx.save_for_backward(found.units, found.scale, *weights, *found.kept, *found.memories[:-1])
        ctx.plan, ctx.depth, ctx.links, ctx.own, ctx.shape = plan, depth, found.links, carried, x.shape
        ctx.set_materialize_grads(False)
        return found.units, found.memories[-1]

    @staticmethod
    @by_hand
    def backward(ctx: Any, d_units: Tensor | None, d_memory: Tensor | None) -> Any:
        units, scale, *saved = ctx.saved_tensors
        depth, plan, pieces = ctx.depth, ctx.plan, len(units)
        memories, kept = torch.stack(saved[-pieces:]), Kept(*saved[-pieces - len(Kept._fields) : -pieces])
        layers, _ = _parted(saved, depth)
        sizes = _sizes(units.new_empty(ctx.shape), memories[0], layers, plan, pieces)
        slopes = sizes.slopes(units)
        call, dx = _Call(layers, sizes, plan.eps, kept, slopes), torch.empty_like(units)
        own = [weight for weight in ctx.own if weight.requires_grad]
        d_own: list[Tensor | None] = [None] * len(own)
        for piece in range(pieces)[::-1]:
            d_unit = torch.zeros_like(units[piece]) if d_units is None else d_units[piece]
            d_before = None
            if d_memory is not None:
                *link, made = ctx.links[piece]
                found = torch.autograd.grad(made, [*link, *own], d_memory, retain_graph=True, allow_unused=True)
                d_before, d_unit = found[0], _plus(d_unit, found[1])
                d_own = [_plus(one, other) for one, other in zip(d_own, found[2:], strict=True)]
            d_slots = torch.empty_like(memories[piece]) if plan.read else None
            call.back(piece, d_unit.contiguous(), units[piece], scale[piece], dx[piece], d_slots)
            if not plan.read:
                count = memories.shape[2]
                d_slots = dx[piece, :, :count] + dx[piece, :, -count:]
            d_memory = _plus(d_slots, d_before)
        weights = [
            one for n, layer in enumerate(layers) for one in _weight_gradients(layer, n, kept, slopes, memories, sizes)
        ]
        places = iter(d_own)
        dx = dx if plan.read else dx[:, :, count:-count]
        return dx, d_memory, None, None, *weights, *(next(places) if one.requires_grad else None for one in ctx.own)


def _parted(weights: Sequence[Tensor | None], depth: int) -> tuple[list[Layer], Sequence[Tensor | None]]:
    """The layers' weights, contiguous, and what stands behind them."""
    each = len(Layer._fields)
    own = [None if weight is None else weight.contiguous() for weight in weights[: depth * each]]
    return [Layer(*own[n * each : (n + 1) * each]) for n in range(depth)], weights[depth * each :]


def _plus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return x if y is None else y if x is None else x + y


def _over_rows(slope: Tensor, rows: Tensor) -> Tensor:
    """A map's gradient [out, in] from that of what it made, [.., out], and what it was given, [.., in]."""
    return slope.flatten(0, -2).T @ rows.flatten(0, -2)


def _behind_norm(found: Tensor, gain: Tensor, *weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The gradients of a gain and of maps behind it from those of the maps of unit rows, one below the other."""
    parts = found.split([len(weight) for weight in weights])
    d_gain = sum(torch.einsum("oi,oi->i", part, weight) for part, weight in zip(parts, weights, strict=True))
    return d_gain, [part * gain for part in parts]


def _weight_gradients(layer: Layer, n: int, kept: Kept, slopes: Slopes, memories: Tensor, sizes: Sizes) -> Layer:
    """The gradients of the n-th layer's weights."""
    d_gain, (d_query_key, d_value) = _behind_norm(
        _over_rows(slopes.qkv[n], kept.unit[n]), layer.gain, layer.query_key, layer.value
    )
    found = _over_rows(slopes.gates[n], kept.unit_feed[n]).unflatten(0, (2, -1))[:, : sizes.units].flatten(0, 1)
    d_feed_gain, (d_gate_up,) = _behind_norm(found, layer.feed_gain, layer.gate_up)
    d_out = _over_rows(slopes.out[n], kept.attended[n])
    d_down = _over_rows(slopes.down[n], kept.active[n])[:, : sizes.units]
    always = d_gain, d_query_key, d_value, d_out, d_gate_up, d_feed_gain, d_down
    if not sizes.held:
        return Layer(*always)
    d_ask_gain, (d_ask,) = _behind_norm(_over_rows(slopes.asked[n], kept.unit_ask[n]), layer.ask_gain, layer.ask)
    return Layer(
        *always, d_ask_gain, d_ask, _over_rows(slopes.held[n], memories), _over_rows(slopes.find[n], kept.found[n])
    )
