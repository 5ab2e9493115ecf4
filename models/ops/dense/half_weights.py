"""Weights in bfloat16 for decoding: a token reads each weight once, so half the bytes are much of its time where a model is wide.

The weights of linear maps and embeddings are rounded to bfloat16, and a copy in bfloat16 lies beside each. Compiled maps of a
token read the copy and compute in float32; whatever else reads the weight finds the same number in float32, so a text and its
tokens are read with the same weights, and differ by rounding alone. States, norms, gates and convolutions stay float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.ops import native_build
from models.ops.recording import only_read

_NAME = "_in_bfloat16"


class _Half(NamedTuple):
    copy: Tensor
    version: int  # of the weight that it is a copy of
    address: int  # where that lay: a model that goes to another dtype or device keeps its versions


@torch.no_grad()
def half_weights(model: nn.Module) -> int:
    """Round the float32 weights of linear maps and embeddings in place, keep a copy in bfloat16 beside each; how many numbers.

    A weight that is written afterwards is read in float32 again.
    """
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    weights = list({id(one): one for one in weights if one.dtype is torch.float32}.values())
    for weight in weights:
        copy = weight.to(torch.bfloat16)
        weight.copy_(copy)
        setattr(weight, _NAME, _Half(_laid_out(copy), weight._version, weight.data_ptr()))
    return sum(weight.numel() for weight in weights)


def _laid_out(weight: Tensor) -> Tensor:
    """Weights [out, in] as `native.c` reads them: two registers' numbers as the halves of one register's words."""
    lanes = native_build.lanes(native_build.REGISTER, torch.float32)
    whole = weight.shape[1] // (2 * lanes) * 2 * lanes
    words = weight[:, :whole].unflatten(1, (-1, 2, lanes)).mT.flatten(1)
    return torch.cat([words, weight[:, whole:]], 1).contiguous()


def half_of(weight: Tensor) -> Tensor | None:
    """The copy in bfloat16 that lies beside a weight; None where there is none, or the weight was written or moved since."""
    half = getattr(weight, _NAME, None)
    if half is None or half.version != weight._version or half.address != weight.data_ptr():
        return None
    return only_read(half.copy)
