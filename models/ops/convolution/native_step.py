"""One token that is decoded, compiled: the laws on states as they lie. The C lies in `native_step.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.native_build import compiled, lanes, remembered
from models.ops.providers import NotCovered

SOURCE = Path(__file__).with_name("native_step.c")
SYSTEM = 5  # a, b, c, u, v
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


class _Token(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("rows", "channels", "width", "degree")]
    _fields_ += [("x", ctypes.c_void_p), ("system", ctypes.c_void_p * SYSTEM)]


def step(x: Tensor, state: Tensor | None, system: tuple[Tensor, ...], degree: int) -> tuple[Tensor, Tensor] | None:
    """y [b, 1, d] and the new state of x, state [b, P, d, n, 2] and the system, all of one precision; None for all else.

    What is true of shapes is found out once for each: for a token, asking takes longer than computing.
    """
    if x.shape[1] != 1 or state is None or torch.is_grad_enabled() or not x.is_cpu or torch.is_autocast_enabled("cpu"):
        return None
    if not (state.dtype is x.dtype and x.is_contiguous() and state.is_contiguous()):
        return None
    pairs = COMPLEX.get(x.dtype)
    for one in system:
        if not (one.dtype is pairs and one.is_contiguous() and not one.is_conj()):
            return None
    run = _function(x.shape, state.shape, tuple(one.shape for one in system), degree, x.dtype)
    if run is None:
        return None
    y, after = torch.empty_like(x), torch.empty_like(state)
    rows, _, channels, n, _ = state.shape
    addresses = (ctypes.c_void_p * SYSTEM)(*(one.data_ptr() for one in system))
    token = _Token(rows, channels, 2 * n, degree, x.data_ptr(), addresses)
    run(ctypes.byref(token), state.data_ptr(), after.data_ptr(), y.data_ptr())
    return y, after


@remembered
def _function(x: torch.Size, state: torch.Size, system: tuple[torch.Size, ...], degree: int, kind: torch.dtype) -> Any:
    """The compiled function for these shapes; None where they do not fit, or it cannot be built."""
    if 0 in state or len(system[0]) != 2 or set(system) != {system[0]}:
        return None
    if x != (x[0], 1, system[0][0]) or state != (x[0], degree, *system[0], 2):
        return None
    width = 2 * state[3]
    try:
        return compiled(SOURCE, kind, "step", "pppp", LANES=lanes(width, kind))
    except NotCovered:
        return None
