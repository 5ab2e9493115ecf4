"""Where the time of a training step goes: torch's profiler, its operators sorted into a few kinds.

What no operator accounts for (Python, autograd's bookkeeping, the profiler itself) is `between operators`; views and
allocations, which compute nothing either, are `views and allocation`. A step is also timed without the profiler, so that the
reader sees how much the profiler adds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its tracer reports each start and stop on stderr

PRODUCTS = "matrix products"
SOLVES = "triangular solves"
ATTENTION = "fused attention"
COPIES = "copies"
VIEWS = "views and allocation"
OTHER = "other arithmetic"
BETWEEN = "between operators"

KINDS = {
    PRODUCTS: "mm bmm addmm addmm_ baddbmm baddbmm_ addbmm mv addmv dot mkldnn_linear mkldnn_convolution "
    "convolution _convolution",
    SOLVES: "linalg_solve_triangular triangular_solve linalg_inv_ex linalg_lu_solve",
    ATTENTION: "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward "
    "_flash_attention_forward _flash_attention_backward _efficient_attention_forward _efficient_attention_backward",
    COPIES: "copy_ clone cat stack contiguous _to_copy to fill_ zero_ zeros zeros_like ones ones_like new_zeros roll "
    "constant_pad_nd flip index_select index_put_ _index_put_impl_ slice_backward select_backward repeat",
    VIEWS: "view as_strided slice select transpose t permute expand unsqueeze squeeze reshape _unsafe_view detach detach_ "
    "alias narrow split split_with_sizes chunk unbind empty empty_like empty_strided new_empty resize_ resize_as_ "
    "set_ lift_fresh broadcast_tensors movedim unflatten flatten result_type is_nonzero item _local_scalar_dense "
    "_reshape_alias diagonal",
}
_KIND_OF = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names.split()}


@dataclass(frozen=True)
class Profile:
    """Seconds of one step by kind and by operator (name, calls, seconds), and of one without the profiler."""

    kinds: dict[str, float]
    operators: list[tuple[str, float, float]]
    seconds: float
    unprofiled: float


def profile(step: Callable[[], Tensor], repeats: int = 5) -> Profile:
    """Profile `repeats` steps on the CPU, after two that warm up; all figures are of one step."""
    if repeats < 1:
        raise ValueError(f"A profile needs at least one step, not {repeats}.")
    for _ in range(2):
        step()
    unprofiled = statistics.median(_timed(step) for _ in range(repeats))
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as recorded:
        seconds = sum(_timed(step) for _ in range(repeats))
    kinds: dict[str, float] = defaultdict(float)
    operators = []
    for event in recorded.key_averages():
        if not event.key.startswith("aten::"):
            continue  # autograd's nodes and annotations: their own time is not an operator's
        own = event.self_cpu_time_total / 1e6 / repeats
        kinds[kind(event.key)] += own
        operators.append((event.key.removeprefix("aten::"), event.count / repeats, own))
    seconds /= repeats
    kinds[BETWEEN] = max(0.0, seconds - sum(kinds.values()))
    operators.sort(key=lambda row: -row[2])
    return Profile(dict(sorted(kinds.items(), key=lambda item: -item[1])), operators, seconds, unprofiled)


def kind(operator: str) -> str:
    """The kind of an operator, by its name in the profiler ("aten::mm")."""
    return _KIND_OF.get(operator, OTHER)


def _timed(step: Callable[[], Tensor]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun
