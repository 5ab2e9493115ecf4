"""All layers' maps of a text that is read in segments, each weight's gradient asked for once.

A pair is a layer at a segment. `Steps` says in which order pairs are computed and which of them together; `LayerMap` is a linear
map of every layer under such an order, and `LayerBlocks` the shell's blocks out of such maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.layers import rotary, split_heads
from models.ops.autograd import by_hand
from models.ops.dense.rows import KINDS, gated
from models.ops.providers import is_probing
from models.ops.softmax_attention import softmax_attention
from models.ops.softmax_attention.segment import inside
from models.shell.model import Block


class Step(NamedTuple):
    """Layers first .. stop - 1 at once, the number-th step; `begins` if the last of them is at the first segment."""

    number: int
    first: int
    stop: int
    begins: bool


class Steps:
    """An order of the pairs of `depth` layers and `segments` segments; subclasses say `listed` and `segment`."""

    def __init__(self, depth: int, segments: int):
        self.depth, self.segments = depth, segments
        self.all = self.listed()

    def listed(self) -> list[Step]:
        """The steps in their order."""
        raise NotImplementedError

    def segment(self, step: Step, layer: int) -> int:
        """The segment at which a step's layer is."""
        raise NotImplementedError

    @cached_property
    def order(self) -> Tensor:
        """Where in the steps' order each pair stands, layer by layer: [depth * segments]."""
        pairs = ((layer, self.segment(step, layer)) for step in self.all for layer in range(step.first, step.stop))
        place = {pair: number for number, pair in enumerate(pairs)}
        return torch.tensor([place[layer, n] for layer in range(self.depth) for n in range(self.segments)])


class LayerMap:
    """The same linear map of each layer, `weight` [depth, out, in], applied step by step to `rows` rows of each pair.

    What each step adds to its product is a part of one tensor of zeros, whose gradient is that of all outputs together: so the
    weights' gradient is one product a layer, instead of one for each pair, added up, each as large as the weight.
    """

    def __init__(self, weight: Tensor, steps: Steps, rows: int):
        self.weight, self.heard, self.zeros = weight.detach().mT, [], None
        if torch.is_grad_enabled() and weight.requires_grad:
            zeros = _Late.apply(weight, self.heard, steps, rows)
            self.zeros = zeros.split([step.stop - step.first for step in steps.all])

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        """`x W^T`, x [g, b, r, in] -> [g, b, r, out]."""
        several, weight = x.shape[1:-1], self.weight[step.first : step.stop]
        rows = x.flatten(1, -2)
        if self.zeros is None:
            return torch.bmm(rows, weight).unflatten(1, several)
        self.heard.append(rows.detach())
        return torch.baddbmm(self.zeros[step.number], rows, weight).unflatten(1, several)


class _Late(torch.autograd.Function):
    """`apply(weight, heard, steps, rows)` -> zeros [pairs, rows, out]; what was heard until then meets their gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, heard: list[Tensor], steps: Steps, rows: int) -> Tensor:
        ctx.heard, ctx.steps = heard, steps
        return weight.new_zeros(len(weight) * steps.segments, rows, weight.shape[1])

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        steps, pairs = ctx.steps, [part for rows in ctx.heard for part in rows.unbind(0)]
        x = torch.cat([pairs[place] for place in steps.order.tolist()]).view(steps.depth, -1, pairs[0].shape[-1])
        dy = dy[steps.order].view(steps.depth, -1, dy.shape[-1])
        return torch.bmm(dy.mT, x), None, None, None


def folded(layers: Sequence[nn.Linear], norm: nn.Module) -> Tensor:
    """The maps of rows behind a norm as one [out, in] of rows before its gain, which they take over."""
    weights = [layer.weight for layer in layers]
    return (weights[0] if len(weights) == 1 else torch.cat(weights)) * norm.weight


class LayerBlocks:
    """The shell's blocks with attention inside a segment (`SegmentAttention`), each at its own segment.

    Rows come in without their norm's gain, which the maps have taken over: `unit(x, eps)`, or `added(x, y, eps)` with the sum.
    """

    def __init__(self, blocks: Sequence[Block], steps: Steps, rows: int):
        mixer = blocks[0].mixer
        self.heads, self.eps = mixer.heads, blocks[0].mixer_norm.eps

        def over_all(weights: list[Tensor]) -> LayerMap:
            return LayerMap(torch.stack(weights), steps, rows)

        self.qkv = over_all([folded([b.mixer.query_key, b.mixer.value], b.mixer_norm) for b in blocks])
        self.out = over_all([b.mixer.out.weight for b in blocks])
        self.gate_up = over_all([folded([b.feed.gate_up], b.feed_norm) for b in blocks])
        self.down = over_all([b.feed.down.weight for b in blocks])

    def attend(self, x: Tensor, step: Step) -> Tensor:
        """What the attention makes of unit rows x [g, b, r, D], for the residual sum."""
        qkv, several = self.qkv(x, step).flatten(0, 1), x.shape[:2]
        if (y := inside(qkv, self.heads)) is None:
            width = x.shape[-1]
            qk, v = qkv.split([2 * width, width], -1)
            q, k = rotary(split_heads(qk, 2 * self.heads), 0).chunk(2, 2)
            y = softmax_attention(q, k, split_heads(v, self.heads)).flatten(2)
        return self.out(y.unflatten(0, several), step)

    def feed(self, x: Tensor, step: Step) -> Tensor:
        """What the SwiGLU makes of unit rows x [g, b, r, D], for the residual sum."""
        return self.down(gated(self.gate_up(x, step)), step)


def covered(model: nn.Module, x: Tensor) -> bool:
    """Whether embedded tokens x may pass by such maps: on a CPU, in float32 or float64 like all weights, nobody listening."""
    if not x.is_cpu or x.dtype not in KINDS or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if is_probing():  # nothing is to be compiled, and what is counted is the plain form
        return False
    for part in model.modules():
        if part is not model and (part._forward_hooks or part._forward_pre_hooks):
            return False
        if isinstance(part, nn.Linear) and (type(part) is not nn.Linear or part.weight.dtype is not x.dtype):
            return False
    return True
