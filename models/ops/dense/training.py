"""RMS norm and SiLU gates of many rows compiled, forward and back, while a model trains. The C lies in `training.c`.

PyTorch takes a norm's way back as a dozen operators and a gate's as five, each of which reads and writes the text; here each
number is read once, and nothing is kept for it that is not kept anyway. A gradient that is to be differentiated again is
PyTorch's. What is not covered is None and goes on with PyTorch:
without gradients, half precision, autocast, off the CPU, inside torch.compile and `probing`, without a compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import in_own_dtype
from models.ops.dense.native import PLAIN
from models.ops.native_build import REGISTER, compiled, is_trained_whole, lanes, remembered
from models.ops.providers import NotCovered, note

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
    return provider not in PLAIN and x.dim() > 2 and is_trained_whole(*tensors) and bool(_functions(x.dtype))


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


def _differentiated(
    plain: Callable[..., Tensor], given: Sequence[Tensor | None], dy: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of `plain(*given)` in PyTorch, which can be differentiated again."""
    wanted = [one for one in given if one is not None and one.requires_grad]
    found = iter(torch.autograd.grad(plain(*given), wanted, dy, create_graph=True))
    return tuple([next(found) if one is not None and one.requires_grad else None for one in given])


class _Norm(torch.autograd.Function):
    """`apply(x, gain, eps)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        x, width = x.contiguous(), x.shape[-1]
        y, gain = torch.empty_like(x), None if gain is None else gain.contiguous()
        own, gains = (None, width) if gain is None else (gain.data_ptr(), gain.numel())
        _functions(x.dtype)["norm_forward"](
            x.data_ptr(), own, y.data_ptr(), x.numel() // width, width, gains, eps, torch.get_num_threads()
        )
        return y

    @staticmethod
    @in_own_dtype
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gain = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiated(partial(_norm, eps=ctx.eps), (x, gain), dy), None
        x, dy, gain = x.contiguous(), dy.contiguous(), None if gain is None else gain.contiguous()
        width, dx = x.shape[-1], torch.empty_like(x)
        dgain = None if gain is None else x.new_zeros(BLOCKS, *gain.shape)
        own, gains, sums = (None, width, None) if gain is None else (gain.data_ptr(), gain.numel(), dgain.data_ptr())
        _functions(x.dtype)["norm_backward"](
            x.data_ptr(), own, dy.data_ptr(), dx.data_ptr(), sums, x.numel() // width, width, gains, ctx.eps,
            torch.get_num_threads(),
        )  # fmt: skip
        return dx, None if dgain is None else dgain.sum(0), None


def _norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    width = x.shape[-1]
    y = F.rms_norm(x, (width,), eps=eps)
    return y if gain is None else y * (gain if gain.numel() == width else gain.view(-1, width))


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
        ctx.save_for_backward(u, z)
        return _forward(_rows(u), _rows(z))

    @staticmethod
    @in_own_dtype
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, z = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiated(_gated, (u, z), dy)
        du, dz = (torch.empty(dy.shape, dtype=dy.dtype) for _ in range(2))
        _backward(_rows(u), _rows(z), dy, du, dz)
        return du, dz


def _gated(u: Tensor, z: Tensor) -> Tensor:
    return u * F.silu(z)


class _Halves(torch.autograd.Function):
    """`apply(zu)`, whose gradient is made in one piece."""

    @staticmethod
    def forward(ctx: Any, zu: Tensor) -> Tensor:
        ctx.save_for_backward(zu)
        z, u = _rows(zu).chunk(2, -1)
        return _forward(u, z)

    @staticmethod
    @in_own_dtype
    def backward(ctx: Any, dy: Tensor) -> Tensor | None:
        [zu] = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiated(lambda zu: _gated(*reversed(zu.chunk(2, -1))), (zu,), dy)[0]
        made = torch.empty(zu.shape, dtype=zu.dtype)
        (z, u), (dz, du) = _rows(zu).chunk(2, -1), made.chunk(2, -1)
        _backward(u, z, dy, du, dz)
        return made
