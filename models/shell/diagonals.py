"""Layers of several segments side by side, in models whose layers hand on a memory of their own.

Layer l of segment s waits for layer l - 1 of the same segment and for layer l of the segment before, and for nothing else: so
all pairs (l, s) of one sum l + s are computed at once, each layer with its own weights. depth + segments - 1 steps stand for
depth x segments (Sivtsov et al. 2025, arXiv 2506.05229, "diagonal batching"). Numbers are those of one pair after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import rotary, split_heads
from models.ops.autograd import by_hand
from models.ops.softmax_attention import softmax_attention
from models.shell.model import Block

# A diagonal's rows [g, b, r, D] and memories [g, b, ..] and which it is -> rows and memories behind its layers.
Layers = Callable[[Tensor, Tensor, "Diagonal"], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Diagonal:
    """Step `number`: layers first .. stop - 1, layer l of them at segment `number` - l."""

    number: int
    first: int
    stop: int

    @property
    def begins(self) -> bool:
        """Whether the last of its layers is at the first segment."""
        return self.stop == self.number + 1


@dataclass(frozen=True)
class Diagonals:
    """The steps of `depth` layers over `segments` segments, in order."""

    depth: int
    segments: int

    @cached_property
    def steps(self) -> list[Diagonal]:
        """All of them."""
        count = self.depth + self.segments - 1
        return [Diagonal(n, max(0, n - self.segments + 1), min(self.depth, n + 1)) for n in range(count)]

    @cached_property
    def order(self) -> Tensor:
        """Where in the steps' order each pair stands, layer by layer: [depth * segments]."""
        place = {}
        for step in self.steps:
            for layer in range(step.first, step.stop):
                place[layer, step.number - layer] = len(place)
        return torch.tensor([place[layer, n] for layer in range(self.depth) for n in range(self.segments)])

    def run(self, layers: Layers, pieces: Sequence[Tensor], memory: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the last layer makes of each segment's rows [b, r, D], and the memories [depth, b, ..] behind the last segment.

        `memory` holds those of all layers before the first one.
        """
        waiting, entering = list(pieces), memory.split(1)
        below = held = None
        done, left = [], []
        for step in self.steps:
            rows = [waiting[step.number][None]] if step.first == 0 else []
            rows = torch.cat([*rows, *([] if below is None else [below])])
            held = [] if held is None else [held]
            held = torch.cat([*held, *([entering[step.stop - 1]] if step.begins else [])])
            rows, held = layers(rows, held, step)
            below = rows
            if step.stop == self.depth:
                below, last = rows.split([len(rows) - 1, 1])
                done.append(last[0])
            if step.number - step.first == self.segments - 1:
                last, held = held.split([1, len(held) - 1])
                left.append(last)
        return done, torch.cat(left)


class LayerMap:
    """The same linear map of each layer, `weight` [depth, out, in], applied along diagonals to `rows` rows of each pair.

    What each step adds to its product is a part of one tensor of zeros, whose gradient is that of all outputs together: so the
    weights' gradient is one product a layer, instead of one for each pair, added up, each as large as the weight.
    """

    def __init__(self, weight: Tensor, diagonals: Diagonals, rows: int):
        self.weight, self.heard, self.zeros = weight.detach().mT, [], None
        if torch.is_grad_enabled() and weight.requires_grad:
            zeros = _Late.apply(weight, self.heard, diagonals, rows)
            self.zeros = zeros.split([step.stop - step.first for step in diagonals.steps])

    def __call__(self, x: Tensor, step: Diagonal) -> Tensor:
        """`x W^T`, x [g, b, r, in] -> [g, b, r, out]."""
        several, weight = x.shape[1:-1], self.weight[step.first : step.stop]
        rows = x.flatten(1, -2)
        if self.zeros is None:
            return torch.bmm(rows, weight).unflatten(1, several)
        self.heard.append(rows.detach())
        return torch.baddbmm(self.zeros[step.number], rows, weight).unflatten(1, several)


class _Late(torch.autograd.Function):
    """`apply(weight, heard, diagonals, rows)` -> zeros [pairs, rows, out]; what was heard until then meets their gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, heard: list[Tensor], diagonals: Diagonals, rows: int) -> Tensor:
        ctx.heard, ctx.diagonals = heard, diagonals
        return weight.new_zeros(len(weight) * diagonals.segments, rows, weight.shape[1])

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        order, depth = ctx.diagonals.order, ctx.diagonals.depth
        dy, x = (part[order].unflatten(0, (depth, -1)).flatten(1, 2) for part in (dy, torch.cat(ctx.heard)))
        return torch.bmm(dy.mT, x), None, None, None


def folded(layers: Sequence[nn.Linear], norm: nn.Module) -> Tensor:
    """The maps of rows behind a norm as one [out, in] of rows before its gain, which they take over."""
    weights = [layer.weight for layer in layers]
    return (weights[0] if len(weights) == 1 else torch.cat(weights)) * norm.weight


def unit(x: Tensor, eps: float) -> Tensor:
    """Rows brought to a mean square of 1: an RMSNorm without its gain."""
    return F.rms_norm(x, x.shape[-1:], None, eps)


class LayerBlocks:
    """The shell's blocks with attention inside a segment (`SegmentAttention`), each at its own segment."""

    def __init__(self, blocks: Sequence[Block], diagonals: Diagonals, rows: int):
        mixer = blocks[0].mixer
        self.heads, self.provider, self.eps = mixer.heads, mixer.provider, blocks[0].mixer_norm.eps

        def over_all(weights: list[Tensor]) -> LayerMap:
            return LayerMap(torch.stack(weights), diagonals, rows)

        self.qkv = over_all([folded([b.mixer.query_key, b.mixer.value], b.mixer_norm) for b in blocks])
        self.out = over_all([b.mixer.out.weight for b in blocks])
        self.gate_up = over_all([folded([b.feed.gate_up], b.feed_norm) for b in blocks])
        self.down = over_all([b.feed.down.weight for b in blocks])

    def attended(self, x: Tensor, step: Diagonal) -> Tensor:
        """x [g, b, r, D] behind the attention."""
        width = x.shape[-1]
        qk, v = self.qkv(unit(x, self.eps), step).flatten(0, 1).split([2 * width, width], -1)
        q, k = rotary(split_heads(qk, 2 * self.heads), 0).chunk(2, 2)
        y = softmax_attention(q, k, split_heads(v, self.heads), provider=self.provider)
        return x + self.out(y.flatten(2).unflatten(0, x.shape[:2]), step)

    def fed(self, x: Tensor, step: Diagonal) -> Tensor:
        """x [g, b, r, D] behind the SwiGLU."""
        gate, up = self.gate_up(unit(x, self.eps), step).chunk(2, -1)
        return x + self.down(F.silu(gate) * up, step)


def covered(model: nn.Module, x: Tensor) -> bool:
    """Whether embedded tokens x may pass along diagonals: on a CPU, in the weights' own dtype, where nobody listens inside."""
    if not x.is_cpu or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    for part in model.modules():
        if part is not model and (part._forward_hooks or part._forward_pre_hooks):
            return False
        if isinstance(part, nn.Linear) and (type(part) is not nn.Linear or part.weight.dtype is not x.dtype):
            return False
    return True

