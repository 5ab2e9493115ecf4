"""The sLSTM: an input gate that is an exponential, and a normaliser. Forward, and backward by hand.

With m the running maximum, w = e^(i - m_t) and k = e^(log sigmoid(f) + m_{t-1} - m_t), both at most 1,

    dc_t = dh_t o / n + (dc k)_{t+1},   dn_t = -dh_t h / n + (dn k)_{t+1},   dh_t = dy_t + R^T da_{t+1}
    da_o = dh (c / n) o (1 - o),   da_z = dc w (1 - z^2),   da_i = (dc z + dn) w,
    da_f = (dc c_{t-1} + dn n_{t-1}) k sigmoid(-f)

m is a scale that c / n does not depend on, so it has no gradient. The larger of w and k is 1, so n is never below 1 in a text.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.recurrent_cell.by_hand.steps import beside, columns, gates_of, product_of, recurrent_gradient, slots


class SLSTM(torch.autograd.Function):
    """`apply(x, recurrent, h, c, n, m)` -> h of all tokens [t, .., k], and the last c, n and m.

    Shapes: x [t, b, 4 k] or [t, h, b, 4 k], recurrent [4 k, k] or [h, 4 k, k]; rows in the order
    input, forget, candidate, output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, recurrent: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor):
        hs = h.new_empty(len(x) + 1, *h.shape)
        memory = h.new_empty(len(x) + 1, *h.shape[:-1], 2, h.shape[-1])  # c and n
        hs[0], memory[0] = h, torch.stack([c, n], -2)
        gates, moves = gates_of(torch.empty_like(x), 4), torch.empty_like(memory[1:])  # moves: w and k
        quotient = torch.empty_like(hs[1:])
        m = _forward(x, columns(recurrent, len(x)), gates, moves, hs, memory, quotient, m)
        ctx.save_for_backward(recurrent, gates, moves, hs, memory, quotient)
        ctx.mark_non_differentiable(m)
        c, n = (part.clone() for part in memory[-1].unbind(-2))
        return hs[1:], c, n, m

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dc: Tensor, dn: Tensor, _: Tensor):
        recurrent, gates, moves, hs, memory, quotient = ctx.saved_tensors
        slopes, of_n, to_memory = _slopes(gates, moves, hs, memory, quotient)
        dh, (dc, dn) = _backward(dy, torch.stack([dc, dn], -2), slopes, of_n, to_memory, moves, recurrent)
        dx = slopes.flatten(-2)
        return dx, recurrent_gradient(dx, hs[:-1]), dh, dc, dn, None


def _forward(x, weights, gates, moves, hs, memory, quotient, m) -> Tensor:
    """Fill everything token by token; the last m."""
    product, flat = product_of(hs[0]), gates.flatten(-2).unbind(0)
    i, f, z, o = (slots(gates, g) for g in range(4))
    (write, keep), (c, n) = ([slots(part, g) for g in range(2)] for part in (moves, memory))
    x, hs, memory, moves, quotient = (part.unbind(0) for part in (x, hs, memory, moves, quotient))
    for t in range(len(x)):
        product(x[t], hs[t], weights, out=flat[t])
        o[t].sigmoid_()
        z[t].tanh_()
        torch.add(F.logsigmoid(f[t]), m, out=keep[t])
        m = torch.maximum(i[t], keep[t])
        write[t].copy_(i[t])
        moves[t].sub_(beside(m)).exp_()
        torch.mul(memory[t], beside(keep[t]), out=memory[t + 1])
        c[t + 1].addcmul_(write[t], z[t])
        n[t + 1].add_(write[t])
        torch.mul(o[t], torch.div(c[t + 1], n[t + 1], out=quotient[t]), out=hs[t + 1])
    return m


def _slopes(gates, moves, hs, memory, quotient) -> tuple[Tensor, Tensor, Tensor]:
    """What the slopes of the gates' sums are multiples of: of dh the output's, of dc the others'.

    Then of dn those of input and forget gate, and of dh those of c and n.
    """
    _, f, z, o = gates.unbind(-2)
    write, keep = moves.unbind(-2)
    slopes, of_n = torch.empty_like(gates), torch.empty_like(moves)
    torch.mul(z, write, out=slopes[..., 0, :])
    keep = keep * (-f).sigmoid_()
    torch.mul(memory[:-1, ..., 0, :], keep, out=slopes[..., 1, :])
    torch.mul(write, 1 - z.square(), out=slopes[..., 2, :])
    torch.mul(quotient, o * (1 - o), out=slopes[..., 3, :])
    of_n[..., 0, :] = write
    torch.mul(memory[:-1, ..., 1, :], keep, out=of_n[..., 1, :])
    n = memory[1:].select(-2, 1)
    return slopes, of_n, torch.stack([o / n, -hs[1:] / n], -2)


def _backward(dy, dmemory, slopes, of_n, to_memory, moves, recurrent) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Turn the slopes into gradients, from the last token to the first; the gradients of the state before them."""
    product, flat = product_of(dy[0]), slopes.flatten(-2).unbind(0)
    output, others, inner = slots(slopes, 3), slots(slopes, 0, 3), slots(slopes, 0, 2)
    keep = slots(moves, 1)
    dy, of_n, to_memory = (part.unbind(0) for part in (dy, of_n, to_memory))
    dc, dn = (part.unsqueeze(-2) for part in dmemory.unbind(-2))
    dh, nothing = dy[-1], torch.zeros_like(dy[-1])
    for t in reversed(range(len(dy))):
        dmemory.addcmul_(beside(dh), to_memory[t])
        output[t].mul_(dh)
        others[t].mul_(dc)
        inner[t].addcmul_(of_n[t], dn)
        dmemory.mul_(beside(keep[t]))
        dh = product(dy[t - 1] if t else nothing, flat[t], recurrent)
    return dh, dmemory.unbind(-2)
