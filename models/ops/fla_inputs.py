"""What tensors flash-linear-attention's kernels are given in."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype of autocast where it is on, else the widest of the tensors' own."""
    device = tensors[0].device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return reduce(torch.promote_types, (x.dtype for x in tensors))
