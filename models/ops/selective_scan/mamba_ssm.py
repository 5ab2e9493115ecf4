"""Mamba's scan by its authors' kernel (package mamba-ssm, https://github.com/state-spaces/mamba).

`selective_scan_fn` begins at zero and gives no gradient to the state that it returns. Both are mended with tokens that
change nothing else, N states being N numbers a channel:

    in front    N tokens with Delta = e, B = one-hot(n), x = state_n / e      write the carried state; exp(e A) rounds to 1
    behind      N tokens with Delta = 0, C = one-hot(n)                       read the last state and forget nothing

with e a power of 2, so that the division is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.providers import NotCovered, require
from models.ops.scan.mamba_ssm import LEADING, kernel_of

MOST_STATES = 256  # of a channel, in the kernel


def selective(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`models.ops.scan.recurrence.selective` by `selective_scan_fn`, in float32; same shapes. y comes back in x's dtype.

    Raises NotCovered for float64, for tensors that are not on a CUDA device and for more than 256 states.
    """
    require("mamba-ssm", x)
    states = A.shape[1]
    if states > MOST_STATES:
        raise NotCovered(
            f"Provider 'mamba-ssm' scans at most {MOST_STATES} states a channel, not {states}; use chunked."
        )
    dtype, time = x.dtype, x.shape[1]
    kernel = kernel_of("selective_scan_interface", "selective_scan_fn")
    with torch.autocast(x.device.type, enabled=False):
        x, delta, A, B, C = (value.float() for value in (x, delta, A, B, C))
        # Columns [b, d, t] and [b, N, t]: what the kernel reads.
        columns = [value.mT for value in (x, delta, B, C)]
        if state is not None:
            columns = _with_state(columns, state.float())
        differentiated = torch.is_grad_enabled()
        if differentiated:
            columns = _with_reads(columns)
        u, step, writes, reads = (value.contiguous() for value in columns)
        y = kernel(u, step, A.contiguous(), writes, reads, return_last_state=not differentiated)
        y, last = (y[..., :-states], y[..., -states:]) if differentiated else y
    return y[..., -time:].mT.to(dtype), last


def _with_state(columns: list[Tensor], state: Tensor) -> list[Tensor]:
    """Tokens in front that write `state` [b, d, N]."""
    x, delta, B, C = columns
    one = _one_hot(B)
    front = state / LEADING, torch.full_like(state, LEADING), one, torch.zeros_like(one)
    return [torch.cat(pair, -1) for pair in zip(front, columns, strict=True)]


def _with_reads(columns: list[Tensor]) -> list[Tensor]:
    """Tokens behind that read the last state."""
    x, delta, B, C = columns
    one = _one_hot(B)
    nothing = x.new_zeros(*x.shape[:2], B.shape[1])
    behind = nothing, nothing, torch.zeros_like(one), one
    return [torch.cat(pair, -1) for pair in zip(columns, behind, strict=True)]


def _one_hot(B: Tensor) -> Tensor:
    """[b, N, N]: the n-th of N tokens stands for state n alone."""
    return torch.eye(B.shape[1], dtype=B.dtype, device=B.device).expand(len(B), -1, -1)
