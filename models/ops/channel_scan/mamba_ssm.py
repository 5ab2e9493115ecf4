"""The channel scan with Mamba's scan by its authors' kernel (package mamba-ssm); all else as in the chunked form."""

from __future__ import annotations

from torch import Tensor

from models.ops.channel_scan.chunked import both_ways
from models.ops.channel_scan.recurrence import BlockWeights
from models.ops.selective_scan.mamba_ssm import selective


def channel_scan(x: Tensor, forwards: BlockWeights, backwards: BlockWeights) -> Tensor:
    """`models.ops.channel_scan.recurrence.recurrence` by `selective_scan_fn`; same shapes.

    Raises NotCovered for float64, for tensors that are not on a CUDA device and for more than 256 states.
    """
    return both_ways(x, forwards, backwards, selective)
