"""The law of PolySketchFormer's learned sketches (Kacham, Mirrokni and Zhong 2024, arXiv 2310.01655), vector by vector:

    g(x) = sqrt(r) tanh(f_1(x) * f_2(x) / sqrt(r)),   f_i(x) = D'_i gelu(U'_i [LN(y) | 1]),   y = D_i gelu(U_i [x | 1])

for x behind its LayerNorm; gains and biases of both norms stand in U and U', and gelu is the tanh form. Nothing goes from one
vector to the next, so there is no state.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5  # of the LayerNorms


def recurrence(x: Tensor, up: Tensor, down: Tensor, next_up: Tensor, next_down: Tensor) -> Tensor:
    """g [.., r] of x [.., d]. Shapes: up [2, hidden, d + 1], next_up [2, hidden, r + 1], down and next_down [2, r, hidden]."""
    nets = []
    for own in zip(*(part.to(x.dtype) for part in (up, down, next_up, next_down)), strict=True):
        y = _mapped(x, *own[:2])
        nets.append(_mapped(F.layer_norm(y, y.shape[-1:], eps=EPS), *own[2:]))
    root = nets[0].shape[-1] ** 0.5
    return root * (nets[0] * nets[1] / root).tanh()


def _mapped(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """D gelu(U [x | 1])."""
    return F.linear(F.gelu(F.linear(x, up[:, :-1], up[:, -1]), approximate="tanh"), down)
