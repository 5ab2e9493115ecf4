"""Models of which only shapes are asked: built on the meta device, with nothing drawn and nothing computed.

torch answers a random number or a product on the meta device by tracing its own Python form of it, which takes longer than
building the module and first imports its compiler. What cannot change a shape is therefore answered here at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.matching import deferred

# Operations on single numbers: of tensors of one floating dtype, and plain numbers, they give that dtype and the joint shape.
POINTWISE = {"abs", "add", "clamp", "clamp_max", "clamp_min", "cos", "div", "exp", "expm1", "log", "log1p", "mul"}
POINTWISE |= {"neg", "pow", "reciprocal", "rsqrt", "rsub", "sigmoid", "sign", "sin", "softplus", "sqrt", "sub", "tanh"}
WHOLE = {
    "add",
    "mul",
    "remainder",
    "rsub",
    "sub",
}  # of whole numbers they give whole numbers, with a broken one the usual floats
FILLING = {"bernoulli_", "cauchy_", "copy_", "erfinv_", "exponential_", "fill_", "geometric_", "log_normal_", "normal_"}
FILLING |= {"random_", "uniform_", "zero_"}
# Operations that torch answers on the meta device without a Python form of its own.
COMPILED = {
    "_conj",
    "_to_copy",
    "_unsafe_view",
    "clone",
    "detach",
    "diagonal",
    "empty",
    "expand",
    "full",
    "ones",
    "permute",
}
COMPILED |= {
    "scalar_tensor",
    "select",
    "slice",
    "split",
    "transpose",
    "unsqueeze",
    "view",
    "view_as_complex",
    "view_as_real",
}
COMPILED |= {"zeros"}
ALIKE = {"empty_like", "ones_like", "rand_like", "randn_like", "zeros_like"}
IN_PLACE = FILLING | {f"{name}_" for name in POINTWISE}  # on floating numbers; none changes the shape of what it fills


# What fills a tensor and asks a mode first, each with the fewest dimensions that it takes without an error to tell.
DRAWING = {nn.init.normal_: 0, nn.init.uniform_: 0, nn.init.constant_: 0, nn.init.kaiming_uniform_: 2}


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors made here are on the meta device, as under `torch.device("meta")`, and their numbers are never computed."""
    with _OnMeta("meta"), nullcontext() if deferred.is_deferred(deferred.META) else _Uncomputed():
        yield


class _OnMeta(DeviceContext):
    """`torch.device("meta")` as a block, in which a tensor without memory is not filled either: half of what a layer takes."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in DRAWING:
            filled = args[0] if args else (kwargs or {}).get("tensor")
            if _is_uncomputed(filled) and filled.numel() and filled.dim() >= DRAWING[func]:
                return filled
        try:
            return super().__torch_function__(func, types, args, kwargs)
        except NotImplementedError:  # it has no compiled form, and those in Python have not been imported
            with _Uncomputed():
                return super().__torch_function__(func, types, args, kwargs)


class _Uncomputed(TorchDispatchMode):
    """Answers operations of meta tensors by their shape alone; all others take torch's own way."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: to keep its compiler away from here, torch would import it, which takes longer than all that is built."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in COMPILED:
            return func(*args, **kwargs)
        if name in IN_PLACE and _is_uncomputed(args[0]):
            if name in FILLING or _joint(args) == (tuple(args[0].shape), args[0].dtype):
                return args[0]
        elif name in POINTWISE | WHOLE and not kwargs and (found := _joint(args, name in WHOLE)) is not None:
            return torch.empty(found[0], dtype=found[1], device="meta")
        elif name == "div" and not kwargs and _is_counting(args[0]) and isinstance(args[1], int | float):
            return torch.empty(args[0].shape, device="meta")
        elif name in ROWS and _is_meta(kwargs.get("device")) and (shape := ROWS[name](args)) is not None:
            is_whole = name == "arange" and all(isinstance(value, int) for value in args)
            dtype = kwargs.get("dtype") or (torch.int64 if is_whole else torch.get_default_dtype())
            return torch.empty(shape, dtype=dtype, device="meta")
        elif name in ALIKE and not kwargs.get("dtype") and _is_uncomputed(args[0]):
            return torch.empty(args[0].shape, dtype=args[0].dtype, device="meta")
        elif name in SHAPES and not kwargs and (shape := _told(name, args)) is not None:
            return torch.empty(shape, dtype=_first(args).dtype, device="meta")
        elif name == "linalg_qr" and len(args) == 1 and not kwargs and _is_uncomputed(args[0]) and args[0].dim() > 1:
            *rows, high, wide = args[0].shape
            return args[0].new_empty((*rows, high, min(high, wide))), args[0].new_empty((*rows, min(high, wide), wide))
        elif name == "native_layer_norm" and _is_uncomputed(args[0]) and args[2:4] == (None, None) and _ends(*args[:2]):
            rows = [1 if dim >= args[0].dim() - len(args[1]) else size for dim, size in enumerate(args[0].shape)]
            return tuple(
                torch.empty(shape, dtype=args[0].dtype, device="meta") for shape in (args[0].shape, rows, rows)
            )
        if _is_meta(kwargs.get("device")) or any(map(_is_uncomputed, tree_leaves(args))):
            deferred.load(deferred.META)
        return func(*args, **kwargs)


def _first(args: tuple) -> Tensor:
    """The first tensor, or the first of a list of them."""
    return args[0][0] if isinstance(args[0], list | tuple) else args[0]


def _told(name: str, args: tuple) -> tuple[int, ...] | None:
    """The shape of one of SHAPES; None where it computes with a tensor that is not ours, or torch has an error to tell."""
    tensors = (
        [*args[0]] if isinstance(args[0], list | tuple) else [value for value in args if isinstance(value, Tensor)]
    )
    return SHAPES[name](*args) if tensors and all(map(_is_uncomputed, tensors)) else None


def _ends(x: Tensor, shape: Sequence[int]) -> bool:
    return bool(shape) and tuple(x.shape[-len(shape) :]) == tuple(shape)


def _stacked(tensors: list[Tensor], dim: int = 0) -> tuple[int, ...] | None:
    """The shape of `torch.stack`; None where torch has an error to tell or dtypes to unite."""
    if (
        len({(tuple(each.shape), each.dtype) for each in tensors}) != 1
        or not -tensors[0].dim() - 1 <= dim <= tensors[0].dim()
    ):
        return None
    shape = list(tensors[0].shape)
    shape.insert(dim if dim >= 0 else dim + len(shape) + 1, len(tensors))
    return tuple(shape)


def _joined(tensors: list[Tensor], dim: int = 0) -> tuple[int, ...] | None:
    """The shape of `torch.cat`; None where torch has an error to tell, dtypes to unite, or an empty vector to leave out."""
    first = tensors[0]
    if not -first.dim() <= dim < first.dim():
        return None
    dim %= first.dim()
    others = {(each.dtype, (*each.shape[:dim], *each.shape[dim + 1 :]), each.dim()) for each in tensors}
    if len(others) != 1 or any(each.shape == (0,) for each in tensors):
        return None
    return (*first.shape[:dim], sum(each.shape[dim] for each in tensors), *first.shape[dim + 1 :])


def _over(
    x: Tensor, order: float = 2, dims: Sequence[int] | None = None, keepdim: bool = False
) -> tuple[int, ...] | None:
    """That of a norm along dimensions; None where it is over all of them, or torch has an error to tell."""
    if not x.is_floating_point() or not dims or not all(-x.dim() <= dim < x.dim() for dim in dims):
        return None
    gone = {dim % x.dim() for dim in dims}
    if len(gone) < len(dims):
        return None
    return tuple(1 if dim in gone else size for dim, size in enumerate(x.shape) if keepdim or dim not in gone)


def _multiplied(one: Tensor, other: Tensor) -> tuple[int, ...] | None:
    """That of a matrix product; None where torch has an error to tell."""
    fits = one.shape[:-2] == other.shape[:-2] and one.shape[-1] == other.shape[-2] and one.dtype == other.dtype
    return (*one.shape[:-1], other.shape[-1]) if fits else None


def _repeated(x: Tensor, times: Sequence[int]) -> tuple[int, ...] | None:
    """That of `Tensor.repeat`; None where torch has an error to tell."""
    if len(times) < x.dim():
        return None
    return tuple(many * size for many, size in zip(times, (*[1] * (len(times) - x.dim()), *x.shape), strict=True))


def _drawn(args: tuple) -> tuple[int, ...] | None:
    """The shape of `torch.randn` and `torch.rand`; None where it is not given in plain numbers alone."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else None


def _counted(args: tuple) -> tuple[int] | None:
    """That of `torch.arange`; None where torch has an error to tell."""
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in args):
        return None
    start, end, step = (0, *args, 1) if len(args) == 1 else (*args, 1)[:3]
    return (math.ceil((end - start) / step),) if step and (end - start) / step >= 0 else None


def _spaced(args: tuple) -> tuple[int] | None:
    """That of `torch.linspace`."""
    return (args[2],) if all(isinstance(value, int | float) for value in args) and args[2] >= 0 else None


# Operations whose result is of their first tensor's dtype.
SHAPES = {
    "bmm": _multiplied,
    "cat": _joined,
    "linalg_vector_norm": _over,
    "mm": _multiplied,
    "repeat": _repeated,
    "stack": _stacked,
}
ROWS = {"arange": _counted, "linspace": _spaced, "rand": _drawn, "randn": _drawn}  # operations that make a tensor


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def _is_uncomputed(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "meta"


def _is_counting(value: Any) -> bool:
    """Whether it is an uncomputed tensor of whole numbers, of which a quotient is of floating ones."""
    return _is_uncomputed(value) and not value.is_floating_point() and not value.is_complex()


def _joint(args: tuple, may_count: bool = False) -> tuple[tuple[int, ...], torch.dtype] | None:
    """Shape and dtype of an operation on single numbers, whole ones only if it `may_count`; None where this is left to torch."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    if not tensors or not all(value is None or isinstance(value, Tensor | int | float) for value in args):
        return None
    dtypes = {value.dtype for value in tensors}
    if len(dtypes) > 1 or not all(map(_is_uncomputed, tensors)):
        return None
    dtype = tensors[0].dtype
    if not dtype.is_floating_point:
        if not may_count or dtype != torch.int64:
            return None
        dtype = torch.get_default_dtype() if any(isinstance(value, float) for value in args) else dtype
    try:
        shape = np.broadcast_shapes(*(tuple(value.shape) for value in tensors))  # torch's own imports its compiler
    except ValueError:
        return None  # torch tells the error
    return shape, dtype
