"""Kernel attention by flash-linear-attention's kernels of the matrix state's law (package fla-core): features of one product.

The sums are that law without a comparison, the running maximum of the exponential kernel its forgetting, so `models.ops.scan.fla`
computes both: chunk_simple_gla, and fused_recurrent_simple_gla for one token. fla's own linear attention has another
normaliser, and its Based and ReBased take neither a state nor `plus`.
"""

from __future__ import annotations

from torch import Tensor

from models.ops.kernel_attention.chunked import attended
from models.ops.kernel_attention.features import SHORT
from models.ops.kernel_attention.sums import State
from models.ops.providers import NotCovered, require
from models.ops.scan.fla import scan


def kernel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel: str = "product",
    plus: float = 0.0,
    normalise: bool = True,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.kernel_attention.recurrence.recurrence` by fla's kernels; same shapes. y in v's dtype, sums in float32.

    Raises NotCovered for the kernels "taylor" and "square", for float64, and for tensors that Triton cannot reach.
    """
    for given in (q, k, v):
        require("fla", given)
    if kernel in SHORT:
        raise NotCovered(
            f"Provider 'fla' has no kernel '{kernel}': as a product of features that cancel it loses its small weights where "
            "products are TF32; use chunked."
        )
    return attended(q, k, v, kernel, plus, normalise, state, scan, scan)
