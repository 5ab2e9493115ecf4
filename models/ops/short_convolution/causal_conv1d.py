"""The short convolution by its CUDA kernel (package causal-conv1d, https://github.com/Dao-AILab/causal-conv1d).

The kernel takes x as [b, d, t] with the channels last in memory, which is our [b, t, d] seen the other way, and then carries
earlier inputs; it wants channels in multiples of 8 and 2 to 4 weights a channel. The history that a piece leaves is cut from
the inputs here, so its gradient is PyTorch's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.providers import NotCovered, require


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`models.ops.short_convolution.recurrence.recurrence` by `causal_conv1d_fn`, in the dtype of x or of autocast; same shapes.

    Raises NotCovered for float64, for tensors that are not on a CUDA device, and for other widths than the kernel's.
    """
    require("causal-conv1d", x)
    width, kernel = weight.shape[0], weight.shape[-1]
    if width % 8 or not 2 <= kernel <= 4:
        raise NotCovered(
            "Provider 'causal-conv1d' convolves multiples of 8 channels with 2 to 4 weights each, "
            f"not {width} with {kernel}; use chunked."
        )
    from causal_conv1d import causal_conv1d_fn

    device = x.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    carried = None if state is None else state.to(kind).contiguous().mT
    y = causal_conv1d_fn(
        _laid_out(x.to(kind)).mT,
        weight[:, 0].to(kind),
        None if bias is None else bias.to(kind),
        initial_states=carried,
    )
    before = x.new_zeros(x.shape[0], kernel - 1, width) if state is None else state.to(x.dtype)
    left = torch.cat([before, x[:, -(kernel - 1) :]], dim=1)
    return y.mT, left[:, -(kernel - 1) :].clone()


def _laid_out(x: Tensor) -> Tensor:
    """x [b, t, d] with the strides of a fresh tensor, on 16 bytes: the kernel reads 16 at a time.

    `contiguous` alone passes a slice with one row or one token whatever its strides.
    """
    x = x.contiguous()
    if x.stride() == (x.shape[1] * x.shape[2], x.shape[2], 1) and x.data_ptr() % 16 == 0:
        return x
    return x.clone(memory_format=torch.contiguous_format)
