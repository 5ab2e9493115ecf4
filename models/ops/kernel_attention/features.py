"""Feature maps: what of a query and a key is multiplied, so that `features(q) . features(k)` is their kernel.

    product       phi(x) = x                                       q . k
    taylor        phi(x) = [1, x, squares(x) / sqrt 2]             1 + q . k + (q . k)^2 / 2
    square        phi(x) = squares(x)                              (q . k)^2
    exponential   phi(x) = exp(x)                                  sum_i exp(q_i + k_i)

squares(x) holds the f (f + 1) / 2 products of two numbers of x, each once, and times sqrt 2 where the two differ.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand

KERNELS = ("product", "taylor", "square", "exponential")
SHORT = ("taylor", "square")  # inside a chunk the kernel of q . k costs less than its features


def check_kernel(kernel: str, plus: float = 0.0) -> None:
    """Raise ValueError unless `kernel` is one of KERNELS, and `plus` something that its sums can take."""
    if kernel not in KERNELS:
        raise ValueError(f"Unknown kernel '{kernel}'; choose {', '.join(KERNELS)}.")
    if plus and kernel == "exponential":
        raise ValueError(
            "The exponential kernel's sums are relative to a maximum, which nothing can be added to: use plus=0."
        )


def count(width: int, kernel: str) -> int:
    """How many features a kernel makes of `width` numbers."""
    squared = width * (width + 1) // 2
    return {"taylor": 1 + width + squared, "square": squared}.get(kernel, width)


def features(x: Tensor, kernel: str) -> Tensor:
    """phi(x) [.., features] of x [.., f]; the exponential's are not stabilised."""
    check_kernel(kernel)
    if kernel in SHORT:
        return _Expanded.apply(x, kernel) if x.requires_grad else expanded(x, kernel)
    return x.exp() if kernel == "exponential" else x


def _factors(width: int, like: Tensor) -> Tensor:
    """What each of squares(x) is multiplied by."""
    factors = like.new_full((width // 2 + 1, width), math.sqrt(2.0))
    factors[0] = 1
    return factors


def expanded(x: Tensor, kernel: str) -> Tensor:
    """The features of a kernel of q . k, without a gradient.

    Row j of the table below holds x_i x_{i + j} for all i, round the end; the last row of an even width has each twice.
    """
    width = x.shape[-1]
    around = torch.cat([x, x[..., : width - 1]], -1).unfold(-1, width, 1)[..., : width // 2 + 1, :]
    factors, kept = _factors(width, x), width * (width + 1) // 2
    if kernel == "square":
        return (x[..., None, :] * around).mul_(factors).flatten(-2)[..., :kept]
    out = x.new_empty(*x.shape[:-1], 1 + width + (width // 2 + 1) * width)
    out[..., 0] = 1
    out[..., 1 : 1 + width] = x
    table = out[..., 1 + width :].unflatten(-1, (-1, width))
    torch.mul(x[..., None, :], around, out=table)
    table.mul_(factors * math.sqrt(0.5))
    return out[..., : 1 + width + kept]


def expanded_back(x: Tensor, kernel: str, gradient: Tensor) -> Tensor:
    """The gradient of x from that of `expanded(x, kernel)`."""
    width = x.shape[-1]
    rows = width // 2 + 1
    scale, start = (math.sqrt(0.5), 1 + width) if kernel == "taylor" else (1.0, 0)
    table = F.pad(gradient[..., start:], (0, rows * width - width * (width + 1) // 2)).unflatten(-1, (rows, width))
    around = torch.cat([x, x[..., : width - 1]], -1)
    table = table * (_factors(width, x) * scale)
    wide = torch.zeros_like(around)
    wide[..., :width] = (table * around.unfold(-1, width, 1)[..., :rows, :]).sum(-2)
    for row in range(rows):
        wide[..., row : row + width].addcmul_(table[..., row, :], x)
    wide[..., : width - 1] += wide[..., width:]
    own = wide[..., :width]
    return own + gradient[..., 1 : 1 + width] if kernel == "taylor" else own


class _Expanded(torch.autograd.Function):
    """`apply(x, kernel)` -> the features of a kernel of q . k."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: str):
        ctx.save_for_backward(x)
        ctx.kernel = kernel
        return expanded(x, kernel)

    @staticmethod
    @by_hand
    def backward(ctx: Any, gradient: Tensor):
        return expanded_back(*ctx.saved_tensors, ctx.kernel, gradient), None


def softmax_features(x: Tensor, projection: Tensor) -> Tensor:
    """log phi(x) [.., m] of the positive features of the softmax kernel (Choromanski et al. 2021, arXiv 2009.14794).

    phi_i(x) = exp(w_i . x' - |x'|^2 / 2) / sqrt m with x' = x d^(-1/4), so that phi(q) . phi(k) estimates exp(q . k / sqrt d).
    Shapes: x [.., d], projection [m, d], rows w_i. At least float32, whatever autocast says.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32)) * x.shape[-1] ** -0.25
        projected = x @ projection.to(x.dtype).T
        return projected - (x.square().sum(-1, keepdim=True) + math.log(len(projection))) / 2


def orthogonal_rows(count: int, width: int) -> Tensor:
    """`count` random rows [count, width]: blocks of orthogonal directions, each with the length of a Gaussian vector.

    The last block is cut. Published codes take Q of a QR decomposition as it is, whose first column then never has a positive
    first number, so that their estimate is biased; here R's diagonal is made positive, and every direction is as likely.
    """
    blocks = []
    for _ in range(-(-count // width)):
        directions, upper = torch.linalg.qr(torch.randn(width, width))
        blocks.append((directions * upper.diagonal().sign()).T)
    return torch.cat(blocks)[:count] * torch.randn(count, width).norm(dim=1, keepdim=True)
