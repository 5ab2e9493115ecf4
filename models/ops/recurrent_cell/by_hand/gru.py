"""The GRU, its reset gate behind the recurrent product or before it: forward, and backward by hand.

behind    da_n = dh (1 - u)(1 - n^2),   da_r = da_n (R_n h + b_n) r (1 - r),   da_u = dh (h_{t-1} - n) u (1 - u)
          dh_{t-1} = dy_{t-1} + dh u + R^T [da_r, da_u, da_n r]
before    ds = R_n^T da_n,   da_r = ds h_{t-1} r (1 - r),   dh_{t-1} = dy_{t-1} + dh u + ds r + R^T [da_r, da_u]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.recurrent_cell.by_hand.steps import (
    carry_back,
    columns,
    gates_of,
    product_of,
    recurrent_gradient,
    slots,
    units_gradient,
)


class GRU(torch.autograd.Function):
    """`apply(x, recurrent, candidate_bias, h)` -> h of all tokens [t, .., k], the reset gate behind the product.

    Shapes: x [t, b, 3 k] or [t, h, b, 3 k], recurrent [3 k, k] or [h, 3 k, k], candidate_bias [k] or [h, 1, k]; rows in the
    order reset, update, candidate.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, recurrent: Tensor, candidate_bias: Tensor, h: Tensor):
        hs, weights = h.new_empty(len(x) + 1, *h.shape), columns(recurrent, len(x))
        hs[0] = h
        gates, n = gates_of(torch.empty_like(x), 3), torch.empty_like(hs[1:])  # r, u and R_n h + b_n
        added = torch.cat([torch.zeros_like(candidate_bias)] * 2 + [candidate_bias], -1)
        product, parts = product_of(h), gates.flatten(-2).unbind(0)
        both, (r, u, inner) = slots(gates, 0, 2), (slots(gates, g) for g in range(3))
        x_gates, x_n = slots(gates_of(x, 3), 0, 2), slots(gates_of(x, 3), 2)
        for t, (now, then, new) in enumerate(zip(hs[:-1].unbind(0), hs[1:].unbind(0), n.unbind(0), strict=True)):
            product(added, now, weights, out=parts[t])
            both[t].add_(x_gates[t]).sigmoid_()
            torch.addcmul(x_n[t], r[t], inner[t], out=new).tanh_()
            torch.lerp(new, now, u[t], out=then)
        ctx.save_for_backward(recurrent, gates, n, hs)
        return hs[1:]

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor):
        recurrent, gates, n, hs = ctx.saved_tensors
        r, u, inner = gates.unbind(-2)
        through = (1 - u) * (1 - n.square())  # from h to what is in the candidate's tanh
        slopes = gates * (1 - gates)
        slopes[..., 0, :] *= through * inner
        slopes[..., 1, :] *= hs[:-1] - n
        torch.mul(through, r, out=slopes[..., 2, :])
        dhs, dh = carry_back(dy, slopes, u, recurrent)
        drecurrent = recurrent_gradient(slopes.flatten(-2), hs[:-1])
        dbias = units_gradient(slopes[..., 2, :], hs.dim())
        torch.mul(through, dhs, out=slopes[..., 2, :])
        return slopes.flatten(-2), drecurrent, dbias, dh


class GRUResetBefore(torch.autograd.Function):
    """`apply(x, recurrent, h)` -> h of all tokens; what is reset is the output itself, so a token takes two products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, recurrent: Tensor, h: Tensor):
        hs = h.new_empty(len(x) + 1, *h.shape)
        hs[0] = h
        gates, n, reset = (
            torch.empty_like(x[..., : 2 * h.shape[-1]]),
            torch.empty_like(hs[1:]),
            torch.empty_like(hs[1:]),
        )
        product = product_of(h)
        to_gates, to_n = (columns(part, len(x)) for part in _parts(recurrent))
        r, u = (slots(gates_of(gates, 2), g) for g in range(2))
        x_gates, x_n = (part.unbind(0) for part in (x[..., : gates.shape[-1]], x[..., gates.shape[-1] :]))
        steps = zip(hs[:-1].unbind(0), hs[1:].unbind(0), n.unbind(0), reset.unbind(0), gates.unbind(0), strict=True)
        for t, (now, then, new, left, both) in enumerate(steps):
            product(x_gates[t], now, to_gates, out=both).sigmoid_()
            product(x_n[t], torch.mul(r[t], now, out=left), to_n, out=new).tanh_()
            torch.lerp(new, now, u[t], out=then)
        ctx.save_for_backward(recurrent, gates_of(gates, 2), n, reset, hs)
        return hs[1:]

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor):
        recurrent, gates, n, reset, hs = ctx.saved_tensors
        r, u = gates.unbind(-2)
        slopes = gates.new_empty(*gates.shape[:-2], 3, gates.shape[-1])
        torch.mul(gates, 1 - gates, out=slopes[..., :2, :])
        slopes[..., 0, :] *= hs[:-1]
        slopes[..., 1, :] *= hs[:-1] - n
        torch.mul(1 - u, 1 - n.square(), out=slopes[..., 2, :])
        dh = _backward(dy, slopes, r, u, recurrent)
        dx = slopes.flatten(-2)
        width = 2 * hs.shape[-1]
        heard = ((dx[..., :width], hs[:-1]), (dx[..., width:], reset))
        return dx, torch.cat([recurrent_gradient(*pair) for pair in heard], -2), dh


def _parts(recurrent: Tensor) -> list[Tensor]:
    """The rows of both gates, and those of the candidate."""
    width = recurrent.shape[-1]
    return [x.contiguous() for x in recurrent.split([2 * width, width], -2)]


def _backward(dy, slopes, r, u, recurrent) -> Tensor:
    """Turn the slopes into gradients, from the last token to the first; the gradient of the state before them."""
    to_gates, to_n = _parts(recurrent)
    product, times = product_of(r[0]), torch.mm if r.dim() == 3 else torch.bmm
    both = [x.flatten(-2) for x in slots(slopes, 0, 2)]
    dr, du, dn = (slots(slopes, g) for g in range(3))
    dy, r, u = (part.unbind(0) for part in (dy, r, u))
    dh = dy[-1]
    for t in reversed(range(len(dy))):
        dn[t].mul_(dh)
        du[t].mul_(dh)
        ds = times(dn[t], to_n)
        dr[t].mul_(ds)
        through = torch.addcmul(dy[t - 1], dh, u[t]) if t else dh * u[t]
        dh = product(through.addcmul_(ds, r[t]), both[t], to_gates, out=through)
    return dh
