"""Mamba-2's scan by its authors' kernel (package mamba-ssm, https://github.com/state-spaces/mamba).

`mamba_chunk_scan_combined` forgets by exp(Delta A) and writes Delta B x, one Delta for both: log-forgetting and rate, which
are apart in the reference recurrence, meet as Delta = -log_forget, A = -1 and x = rate / Delta * v. In Mamba-2 the quotient is
exp(-A_log), so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from models.ops.providers import NotCovered, require

LEADING = 2.0**-40  # e: |e A| is far below float32's rounding for every A up to 2^15
CHUNK = 256  # the kernels' own default; shorter for shorter texts


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor | None = None,
    rate: Tensor | None = None,
    compare: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence by `mamba_chunk_scan_combined` for Mamba-2's row; same shapes, the state in float32.

    Raises NotCovered unless forgetting is per head, a rate is given and nothing is compared, for float64, and for tensors that
    Triton cannot reach.
    """
    require("mamba-ssm", q)
    if compare or rate is None or log_forget is None or log_forget.dim() == 4:
        raise NotCovered(
            "Provider 'mamba-ssm' scans Mamba-2's row alone: forgetting per head, a rate, and no comparison; use chunked."
        )
    dtype = q.dtype
    kind = torch.get_autocast_dtype(q.device.type) if torch.is_autocast_enabled(q.device.type) else q.dtype
    kernel = kernel_of("triton.ssd_combined", "mamba_chunk_scan_combined")
    with torch.autocast(q.device.type, enabled=False):
        delta = LEADING - log_forget.float()  # never 0: what would forget nothing forgets less than float32 can tell
        x = (v.float() * (rate.float() / delta)[..., None]).to(kind)
        y, last = kernel(
            x,
            delta,
            -torch.ones(v.shape[2], device=v.device),
            k.to(kind),
            q.to(kind),
            min(CHUNK, max(16, 1 << (q.shape[1] - 1).bit_length())),
            initial_states=None if state is None else state.float().mT.contiguous(),
            return_final_states=True,
        )
    return y.to(dtype), last.float().mT.contiguous()


def kernel_of(module: str, name: str) -> Callable:
    """A function of the package, which is imported here at the first use."""
    return getattr(import_module(f"mamba_ssm.ops.{module}"), name)
