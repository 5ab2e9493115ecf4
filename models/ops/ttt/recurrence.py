"""The reference recurrence of test-time training: the state is a network, and reading a text trains it.

Sun et al. 2024, arXiv 2407.04620. The network of a head is f(x) = x + LN(z(x)), where z is one affine layer or two with a
tanh-GELU between them. In a mini-batch of c tokens that begins with the weights W, token i does

    compare   g_i = grad over W of 1/2 || f(k_i; W) - v_i ||^2        all gradients at the mini-batch's first weights
    write     G   <- G + r_i g_i                                      r_i: the token's own rate
    forget    nothing
    read      y_i = f(q_i; W - p_i G)                                 p_i: belongs to the place i that reads

and the next mini-batch begins with W - p_c G. LN's scale and bias are slow weights: no token changes them.

Letters: b batch, t time, h heads, d head width, c mini-batch, L layers. A layer's weights and bias are one matrix
[in + 1, out] with the bias as its last row. Token by token, in any dtype, the gradient taken by automatic differentiation;
`models/ops/ttt/chunked.py` has this signature and is held to this loop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6  # of the inner layer norm

Weights = tuple[Tensor, ...]  # one [.., in + 1, out] per layer
State = tuple[Weights, Weights, int]  # W and G, each [b, h, in + 1, out], and the tokens of the open mini-batch
Norm = tuple[Tensor, Tensor]  # scale and bias [h, d]


def network(x: Tensor, weights: Weights, norm: Norm) -> Tensor:
    """`f(x) = x + LN(z(x))`. Shapes: x [b, h, n, d], weights [b, h, in + 1, out] per layer, norm [h, d] -> [b, h, n, d]."""
    z = x
    for index, layer in enumerate(weights):
        z = F.gelu(z, approximate="tanh") if index else z
        z = z @ layer[..., :-1, :] + layer[..., -1:, :]
    scale, bias = (part[:, None] for part in norm)
    return x + F.layer_norm(z, z.shape[-1:], eps=EPSILON) * scale + bias


def loss(weights: Weights, k: Tensor, v: Tensor, norm: Norm) -> Tensor:
    """`1/2 || f(k) - v ||^2`, summed over rows and heads, which share no weights."""
    return 0.5 * (network(k, weights, norm) - v).square().sum()


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rate: Tensor,
    factor: Tensor,
    weights: Weights,
    norm: Norm,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The reference recurrence over a text: y [b, t, h, d] and the state after its last token.

    Shapes: q, k, v [b, t, h, d]; rate r [b, t, h]; factor p [c], whose length is the mini-batch; weights [h, in + 1, out]
    per layer, with which a text begins; norm [h, d]; state None at the beginning of a text.
    """
    batch, time = q.shape[:2]
    if state is None:
        begin = tuple(layer.expand(batch, *layer.shape) for layer in weights)
        state = begin, tuple(torch.zeros_like(layer) for layer in begin), 0
    anchor, total, place = state
    ys = []
    for t in range(time):
        gradient = torch.func.grad(loss)(anchor, k[:, t, :, None], v[:, t, :, None], norm)
        r = rate[:, t, :, None, None]
        total = tuple(sum_ + r * part for sum_, part in zip(total, gradient, strict=True))
        now = tuple(layer - factor[place] * sum_ for layer, sum_ in zip(anchor, total, strict=True))
        ys.append(network(q[:, t, :, None], now, norm)[:, :, 0])
        place += 1
        if place == len(factor):
            anchor, total, place = now, tuple(torch.zeros_like(layer) for layer in now), 0
    return torch.stack(ys, dim=1) if ys else q.new_empty(q.shape), (anchor, total, place)
