"""RMS norm and SiLU gates of many rows compiled, forward and back, while a model trains. The C lies in `training.c`.

PyTorch takes a norm's way back as a dozen operators and a gate's as five, each of which reads and writes the text; here each
number is read once, and nothing is kept for it that is not kept anyway. What is not covered is None and goes on with PyTorch:
without gradients, half precision, autocast, off the CPU, inside torch.compile and `probing`, without a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.dense.native import KINDS, PLAIN
from models.ops.native_build import REGISTER, compiled, lanes, remembered
from models.ops.providers import NotCovered, is_probing, note

SOURCE = Path(__file__).with_name("training.c")
ARGUMENTS = {"norm_forward": "pppllldi", "norm_backward": "pppppllldi"}
ARGUMENTS |= {"gate_forward": "plplplli", "gate_backward": "plplpplpllli"}
BLOCKS = 64  # of rows, as `training.c` has them
# Numbers of a token from which it computes: narrower ones keep PyTorch's digits, to which the trainings that are committed
# come again. Of heads, all heads of a token count, and they are at least LEAST_HEAD wide.
LEAST, LEAST_HEAD, LEAST_FEED = 256, 32, 448


def rms_norm(x: Tensor, gain: Tensor | None, eps: float, provider: str = "auto") -> Tensor | None:
    """`x / sqrt(mean(x^2) + eps) * gain` over the last axis; a gain may be wider: then it lies over several rows at once."""
    if not _is_covered(provider, x, gain) or not _is_wide(x):
        return None
    note("native")
    return _Norm.apply(x, gain, eps)


def gated(u: Tensor, z: Tensor, provider: str = "auto") -> Tensor | None:
    """`u * silu(z)`, alike in shape."""
    if not _is_covered(provider, u, z) or u.shape[2:].numel() < LEAST:
        return None
    note("native")
    return _Gate.apply(u, z)


def gated_halves(zu: Tensor, provider: str = "auto") -> Tensor | None:
    """`silu(z) * u` of zu [.., 2 d], which holds z and u side by side."""
    if not _is_covered(provider, zu) or zu.shape[-1] < 2 * LEAST_FEED:
        return None
    note("native")
    return _Halves.apply(zu)


def _is_covered(provider: str, *tensors: Tensor | None) -> bool:
    x = tensors[0]
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or provider in PLAIN or is_probing():
        return False
    if not x.is_cpu or x.dtype not in KINDS or x.dim() < 3 or not x.numel() or torch.is_autocast_enabled("cpu"):
        return False
    if any(one is not None and one.dtype is not x.dtype for one in tensors):
        return False
    return any(one is not None and one.requires_grad for one in tensors) and bool(_functions(x.dtype))


def _is_wide(x: Tensor) -> bool:
    """Whether a token's row, or its heads together, are wide enough."""
    width = x.shape[-1]
    return width >= LEAST or (x.dim() == 4 and width >= LEAST_HEAD and x.shape[2] * width >= LEAST)


@remembered
def _functions(kind: torch.dtype) -> dict[str, Callable]:
    """The compiled functions for numbers of a kind; none where they cannot be built."""
    try:
        together = lanes(REGISTER, kind)
        return {name: compiled(SOURCE, kind, name, types, LANES=together) for name, types in ARGUMENTS.items()}
    except NotCovered:
        return {}


class _Norm(torch.autograd.Function):
    """`apply(x, gain, eps)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
        x, width = x.contiguous(), x.shape[-1]
        y, gain = torch.empty_like(x), None if gain is None else gain.contiguous()
        own, gains = (None, width) if gain is None else (gain.data_ptr(), gain.numel())
        _functions(x.dtype)["norm_forward"](
            x.data_ptr(), own, y.data_ptr(), x.numel() // width, width, gains, eps, torch.get_num_threads()
        )
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, gain), dy = ctx.saved_tensors, dy.contiguous()
        width, dx = x.shape[-1], torch.empty_like(x)
        dgain = None if gain is None else x.new_zeros(BLOCKS, *gain.shape)
        own, gains, sums = (None, width, None) if gain is None else (gain.data_ptr(), gain.numel(), dgain.data_ptr())
        _functions(x.dtype)["norm_backward"](
            x.data_ptr(), own, dy.data_ptr(), dx.data_ptr(), sums, x.numel() // width, width, gains, ctx.eps,
            torch.get_num_threads(),
        )  # fmt: skip
        return dx, None if dgain is None else dgain.sum(0), None


def _rows(x: Tensor) -> Tensor:
    """x, or a copy of it, with rows that lie equally far apart: `stride(-2)`."""
    lies = x.stride(-1) == 1 and all(x.stride(at) == x.shape[at + 1] * x.stride(at + 1) for at in range(x.dim() - 2))
    return x if lies else x.contiguous()


def _forward(u: Tensor, z: Tensor) -> Tensor:
    y = torch.empty(u.shape, dtype=u.dtype)
    width = u.shape[-1]
    _functions(u.dtype)["gate_forward"](
        u.data_ptr(), u.stride(-2), z.data_ptr(), z.stride(-2), y.data_ptr(), u.numel() // width, width,
        torch.get_num_threads(),
    )  # fmt: skip
    return y


def _backward(u: Tensor, z: Tensor, dy: Tensor, du: Tensor, dz: Tensor) -> None:
    """Write the gradients into du and dz."""
    dy, width = dy.contiguous(), u.shape[-1]
    _functions(u.dtype)["gate_backward"](
        u.data_ptr(), u.stride(-2), z.data_ptr(), z.stride(-2), dy.data_ptr(), du.data_ptr(), du.stride(-2),
        dz.data_ptr(), dz.stride(-2), u.numel() // width, width, torch.get_num_threads(),
    )  # fmt: skip


class _Gate(torch.autograd.Function):
    """`apply(u, z)`."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, z: Tensor) -> Tensor:
        u, z = _rows(u), _rows(z)
        ctx.save_for_backward(u, z)
        return _forward(u, z)

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        u, z = ctx.saved_tensors
        du, dz = (torch.empty(dy.shape, dtype=dy.dtype) for _ in range(2))
        _backward(u, z, dy, du, dz)
        return du, dz


class _Halves(torch.autograd.Function):
    """`apply(zu)`, whose gradient is made in one piece."""

    @staticmethod
    def forward(ctx: Any, zu: Tensor) -> Tensor:
        zu = _rows(zu)
        ctx.save_for_backward(zu)
        z, u = zu.chunk(2, -1)
        return _forward(u, z)

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        [zu] = ctx.saved_tensors
        made = torch.empty(zu.shape, dtype=zu.dtype)
        (z, u), (dz, du) = zu.chunk(2, -1), made.chunk(2, -1)
        _backward(u, z, dy, du, dz)
        return made
