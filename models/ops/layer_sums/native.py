"""Weighted sums of earlier layers' outputs, compiled for training. The C lies in `native.c`.

    x_s = sum_i w[s, i] y_i

Term by term, automatic differentiation writes a table for each product, forward and backward, and adds it to the others: with
the square of the depth in terms, most of what a deep model moves through memory. Here the slopes of all sums lie in one table,
handed back from a sum to the output before it, so that what flows into an output is one weighted sum, too.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import REGISTER, lanes, library, pointer
from models.ops.providers import NotCovered, is_compiled, note
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")
PARTS = 16  # of a text, each with its own sums of the weights' gradients, whatever the number of threads
KINDS = (torch.float32, torch.float64)


def covers(x: Tensor, provider: str) -> bool:
    """Whether a training of outputs like x goes through `LayerSums`: else its caller adds the terms up with PyTorch."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype not in KINDS or not x.numel() or not is_compiled(provider, x):
        return False
    try:
        return bool(_built(x.dtype))
    except NotCovered:
        return False


class LayerSums:
    """The sums of one text: `add` each output as it comes, ask for `next` whenever a sum of all so far is due.

    `weights` [sums, outputs]: row s holds those of the s-th sum, of which only outputs added before it count.
    """

    def __init__(self, weights: Tensor):
        self.weights, self.numbers = weights, weights.detach().contiguous()
        self.terms: list[Tensor] = []
        self.place, self.slopes = 0, None
        note("native")

    def add(self, y: Tensor) -> None:
        """One more output, of the shape and dtype of all others."""
        y = y.contiguous()
        if self.slopes is None:
            self.slopes = _placeholder(y, len(self.weights))
        if y.shape != self.slopes.shape[1:] or y.dtype != self.slopes.dtype:
            raise ValueError(f"An output {tuple(y.shape)} beside others {tuple(self.slopes.shape[1:])}.")
        self.slopes = _Added.apply(y, self.slopes, self.weights[self.place :, len(self.terms)], self.place)
        self.terms.append(y.detach())

    def next(self) -> Tensor:
        """The next sum, of all outputs so far."""
        row = self.numbers[self.place, : len(self.terms)]
        x, self.slopes = _Summed.apply(self.slopes, tuple(self.terms), row, self.place)
        self.place += 1
        return x


def _built(kind: torch.dtype) -> Library:
    return library(SOURCE, kind, LANES=lanes(REGISTER, kind))


def _placeholder(y: Tensor, sums: int) -> Tensor:
    """What stands for a table [sums, *y.shape] whose gradient alone is ever written; it takes one number."""
    return y.new_empty(()).expand(sums, *y.shape)


class _Summed(torch.autograd.Function):
    """`apply(slopes, terms, weights, place)` -> their sum, and the placeholder as it goes on."""

    @staticmethod
    def forward(ctx: Any, slopes: Tensor, terms: tuple[Tensor, ...], weights: Tensor, place: int):
        ctx.set_materialize_grads(False)
        ctx.place, ctx.sums, x = place, len(slopes), torch.empty_like(terms[0])
        places = (ctypes.c_void_p * len(terms))(*(one.data_ptr() for one in terms))
        many, count = ctypes.c_long(len(terms)), ctypes.c_long(x.numel())
        _built(x.dtype).forward(places, pointer(weights), many, count, pointer(x), torch.get_num_threads())
        return x, _placeholder(x, len(slopes))

    @staticmethod
    @by_hand
    def backward(ctx: Any, dx: Tensor | None, slopes: Tensor | None):
        if slopes is None:  # the last sum that was asked for
            slopes = dx.new_empty(ctx.sums, *dx.shape)
            slopes[ctx.place + 1 :].zero_()
        # The table is this chain's own: each placeholder is handed to one successor alone.
        slopes[ctx.place].zero_() if dx is None else slopes[ctx.place].copy_(dx)
        return slopes, None, None, None


class _Added(torch.autograd.Function):
    """`apply(y, slopes, weights, place)` -> the placeholder behind an output, a term of all sums from `place` on."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, slopes: Tensor, weights: Tensor, place: int):
        ctx.set_materialize_grads(False)
        ctx.place = place
        ctx.save_for_backward(y, weights.contiguous())
        return _placeholder(y, len(slopes))

    @staticmethod
    @by_hand
    def backward(ctx: Any, slopes: Tensor):
        y, weights = ctx.saved_tensors
        dy, parts = torch.empty_like(y), y.new_zeros(PARTS, len(weights))
        many, count = ctypes.c_long(len(weights)), ctypes.c_long(y.numel())
        _built(y.dtype).backward(
            pointer(slopes[ctx.place :]), pointer(weights), pointer(y), many, count, pointer(dy), pointer(parts),
            ctypes.c_long(PARTS), torch.get_num_threads(),
        )  # fmt: skip
        return dy, slopes, parts.sum(0), None
