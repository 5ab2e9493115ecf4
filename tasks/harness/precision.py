"""What arithmetic a run uses: the `dtype` column of every row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from schema import shortened, suggestion
from schema.terms import DTYPES


@contextmanager
def precision(dtype: str, device: str) -> Iterator[None]:
    """Run the block in `dtype`.

    `float32` is plain; `float32+onednn` lets oneDNN compute the CPU's float32 products, which is faster on AMD
    processors and still accurate where no bfloat16 matrix unit exists (on Intel AMX it rounds); `bfloat16` is
    autocast: dense parts in bfloat16, states and coefficients in float32. Raises ValueError for another name.
    """
    if dtype not in DTYPES:
        word = f"{shortened(dtype)}{suggestion(dtype, DTYPES)}"
        raise ValueError(f"Unknown dtype {word}; choose one of {', '.join(DTYPES)}.")
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16" if dtype == "float32+onednn" else "none"
    try:
        with torch.autocast(device, torch.bfloat16) if dtype == "bfloat16" else nullcontext():
            yield
    finally:
        matmul.fp32_precision = before
