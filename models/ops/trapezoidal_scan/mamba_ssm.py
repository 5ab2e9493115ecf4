"""Mamba-3's scan by its authors' kernels (package mamba-ssm, https://github.com/state-spaces/mamba): `mamba3_siso_combined`.

They compute the law of `recurrence.py`, both ways, biases, turning, trapezoid and skip included: run in float32 by Triton's
interpreter they agree with it below 2e-6. What is called rounds q, k, v, the trapezoid and the speed to bfloat16 whatever it is
given, keeps the states that its backward pass reads in bfloat16, and takes sines and cosines by the GPU's approximations; so it
serves where v is bfloat16, and else, and for other widths, the package's chunk scan of Mamba-2's row does. A turned key keeps
its pairs side by side there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.fla_inputs import working_dtype
from models.ops.providers import require
from models.ops.scan.mamba_ssm import kernel_of, scan
from models.ops.trapezoidal_scan.by_scan import Forms, by
from models.ops.trapezoidal_scan.recurrence import State
from models.ops.trapezoidal_scan.turning import reduced

KIND = torch.bfloat16  # what the kernels compute in
WIDTHS = (16, 32, 64, 128)  # of keys and values of a head
CHUNK = 64


def trapezoidal_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias_q: Tensor,
    bias_k: Tensor,
    log_forget: Tensor,
    delta: Tensor,
    trapezoid: Tensor,
    speed: Tensor,
    skip: Tensor,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.trapezoidal_scan.recurrence.recurrence` by mamba-ssm's kernels; same shapes, the state in float32.

    Raises NotCovered for float64 and for tensors that are not on a CUDA device.
    """
    for given in (q, v):
        require("mamba-ssm", given)
    fits = q.shape[-1] in WIDTHS and v.shape[-1] in WIDTHS and 0 < speed.shape[-1] <= q.shape[-1] // 2
    if working_dtype(v) != KIND or not fits or not v.shape[1]:
        named = {"bias_q": bias_q, "bias_k": bias_k, "log_forget": log_forget, "delta": delta, "trapezoid": trapezoid}
        return by(Forms(scan), q, k, v, **named, speed=speed, skip=skip, state=state)
    dtype, angles = v.dtype, speed.shape[-1]
    kernel = kernel_of("triton.mamba3.mamba3_siso_combined", "mamba3_siso_combined")
    with torch.autocast(v.device.type, enabled=False):
        y, angle, matrix, last_k, last_v = kernel(
            *(x.to(KIND).contiguous() for x in (q, k, v)),
            *(x.float().mT.contiguous() for x in (log_forget, delta, trapezoid)),
            bias_q.float(),
            bias_k.float(),
            speed.float()[:, :, None].expand(*v.shape[:3], angles).contiguous(),
            skip.float(),
            Input_States=None if state is None else _given(state),
            chunk_size=CHUNK,
            return_final_states=True,
        )
        matrix, last_k = _parted(matrix.float(), angles).mT, _parted(last_k.float(), angles)
    return y.to(dtype), (reduced(angle.float()), matrix.contiguous(), last_k.contiguous(), last_v.float())


def _given(state: State) -> State:
    """The state as the kernels take it: S as [b, h, v, N], pairs of key numbers side by side."""
    angle, matrix, last_k, last_v = (x.float() for x in state)
    paired = (_side_by_side(x, angle.shape[-1]).contiguous() for x in (matrix.mT, last_k))
    return angle.contiguous(), *paired, last_v.contiguous()


def _side_by_side(x: Tensor, angles: int) -> Tensor:
    """[.., N] with the first numbers of all pairs first, then the second ones -> pair by pair."""
    first, second, rest = x.split([angles, angles, x.shape[-1] - 2 * angles], -1)
    return torch.cat([torch.stack([first, second], -1).flatten(-2), rest], -1)


def _parted(x: Tensor, angles: int) -> Tensor:
    """[.., N] pair by pair -> the first numbers of all pairs, then the second ones."""
    return torch.cat([x[..., 0 : 2 * angles : 2], x[..., 1 : 2 * angles : 2], x[..., 2 * angles :]], -1)
