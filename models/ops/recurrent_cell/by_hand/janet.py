"""JANET, the LSTM with a forget gate alone: forward, and backward by hand.

With s = sigmoid(1 - f), which is 1 - sigmoid(f - 1), and z the tanh of the candidate's sum,

    da_f = dh (h_{t-1} sigmoid'(f) - z s (1 - s)),   da_z = dh s (1 - z^2),   dh_{t-1} = dy_{t-1} + dh sigmoid(f) + R^T da
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.recurrent_cell.by_hand.steps import carry_back, columns, gates_of, product_of, recurrent_gradient, slots


class Janet(torch.autograd.Function):
    """`apply(x, recurrent, h)` -> h of all tokens [t, .., k].

    Shapes: x [t, b, 2 k] or [t, h, b, 2 k], recurrent [2 k, k] or [h, 2 k, k]; rows in the order forget, candidate.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, recurrent: Tensor, h: Tensor):
        hs, weights = h.new_empty(len(x) + 1, *h.shape), columns(recurrent, len(x))
        hs[0] = h
        sums = torch.empty_like(x)
        keep, write = torch.empty_like(hs[1:]), torch.empty_like(hs[1:])
        product, flat, one = product_of(h), sums.unbind(0), h.new_ones(())
        f, z = (slots(gates_of(sums, 2), g) for g in range(2))
        steps = zip(x.unbind(0), hs[:-1].unbind(0), hs[1:].unbind(0), keep.unbind(0), write.unbind(0), strict=True)
        for t, (token, now, then, kept, written) in enumerate(steps):
            product(token, now, weights, out=flat[t])
            torch.sub(one, f[t], out=written).sigmoid_()
            torch.mul(torch.sigmoid(f[t], out=kept), now, out=then).addcmul_(written, z[t].tanh_())
        ctx.save_for_backward(recurrent, gates_of(sums, 2), keep, write, hs)
        return hs[1:]

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor):
        recurrent, sums, keep, write, hs = ctx.saved_tensors
        z = sums.select(-2, 1)
        slopes = torch.empty_like(sums)
        torch.mul(write, 1 - z.square(), out=slopes[..., 1, :])
        torch.mul(hs[:-1], keep * (1 - keep), out=slopes[..., 0, :]).addcmul_(z, write * (1 - write), value=-1)
        _, dh = carry_back(dy, slopes, keep, recurrent)
        dx = slopes.flatten(-2)
        return dx, recurrent_gradient(dx, hs[:-1]), dh
