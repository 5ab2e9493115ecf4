"""The sequential half of the dual form of test-time training: gradient descent from mini-batch to mini-batch.

Per mini-batch, with x the rows of a layer's inputs (a 1 appended), W its weights and r the rates of the tokens as the last
token reads them:

    z_l = x_l W_l,  x_{l+1} = gelu(z_l)                                forward, from x_0 = k to the top layer
    g_top = N'(aim + gain * N(z_top)),  g_l = (g_{l+1} W_{l+1}^T) * gelu'(z_l)
    W_l <- W_l - (r x_l)^T g_l

N is the layer norm without scale and bias, and N'(a) = (a - mean(a) - N mean(a N)) / deviation its Jacobian, which is
symmetric, applied to a. The backward pass is by hand: the steps are so small that on a CPU the bookkeeping of automatic
differentiation costs more than their mathematics. What does not pass through W is left until after the chunk loop, for all
mini-batches at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.ttt.recurrence import EPSILON

_aten = torch.ops.aten


class Descent(torch.autograd.Function):
    """`apply(k, aim, rate, gain, *weights)`: the chunk loop over n mini-batches of c rows, for m = batch * heads networks.

    Shapes: k [n, m, c, d + 1], aim [n, m, c, d], rate [n, m, c, 1], gain [m, 1, d], weights [m, in + 1, out] for each of L
    layers. Returns, flat: the L weights before every mini-batch [n, m, in + 1, out], the inputs [n, m, c, in + 1] of the
    L - 1 upper layers, the L errors g [n, m, c, out], and the L last weights [m, in + 1, out].
    """

    @staticmethod
    def forward(ctx, k: Tensor, aim: Tensor, rate: Tensor, gain: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        n, m, c, _ = k.shape
        layers = range(len(weights))
        w = [layer.new_empty(n + 1, *layer.shape) for layer in weights]
        x = [k] + [k.new_ones(n, m, c, layer.shape[1]) for layer in weights[1:]]
        z, g = ([k.new_empty(n, m, c, layer.shape[2]) for layer in weights] for _ in range(2))
        back = [torch.empty_like(errors) for errors in g[:-1]]  # g_{l+1} W_{l+1}^T
        for layer in layers:
            w[layer][0] = weights[layer]
        mean, inverse = torch.empty_like(rate), torch.empty_like(rate)
        minus = -rate
        for i in range(n):
            for layer in layers:
                torch.bmm(x[layer][i], w[layer][i], out=z[layer][i])
                if layer < layers[-1]:
                    _aten.gelu.out(z[layer][i], approximate="tanh", out=x[layer + 1][i, :, :, :-1])
            normed, mean[i], inverse[i] = torch.native_layer_norm(z[-1][i], aim.shape[-1:], None, None, EPSILON)
            g[-1][i] = _jacobian(torch.addcmul(aim[i], gain, normed), z[-1][i], mean[i], inverse[i])
            for layer in reversed(layers[:-1]):
                torch.bmm(g[layer + 1][i], w[layer + 1][i, :, :-1].mT, out=back[layer][i])
                g[layer][i] = _aten.gelu_backward(back[layer][i], z[layer][i], approximate="tanh")
            for layer in layers:
                torch.baddbmm(w[layer][i], (minus[i] * x[layer][i]).mT, g[layer][i], out=w[layer][i + 1])
        ctx.depth = len(weights)
        ctx.save_for_backward(aim, rate, gain, mean, inverse, *w, *x, *z, *g, *back)
        return (*(layer[:-1] for layer in w), *x[1:], *g, *(layer[-1].clone() for layer in w))

    @staticmethod
    @by_hand
    def backward(ctx, *given: Tensor) -> tuple[Tensor, ...]:
        depth = ctx.depth
        aim, rate, gain, mean, inverse, *rest = ctx.saved_tensors
        w, x, z, g = (rest[i * depth : (i + 1) * depth] for i in range(4))
        from_w, from_x, from_g = given[:depth], given[depth : 2 * depth - 1], given[2 * depth - 1 : -depth]
        norm = _NormBackward(aim, gain, z[-1], g[-1], mean, inverse)
        back = rest[4 * depth :]
        dw = [torch.empty_like(layer) for layer in w]
        xdw = [torch.empty_like(errors) for errors in g]  # x times the gradient of the weights after the mini-batch
        dz_first = torch.empty_like(z[0])
        for layer in range(depth):
            dw[layer][-1] = given[layer - depth]
        for i in reversed(range(len(aim))):
            dg, dx = [], [None]
            for layer in range(depth):
                after = dw[layer][i + 1]
                torch.bmm(x[layer][i], after, out=xdw[layer][i])
                dg.append(torch.addcmul(from_g[layer][i], rate[i], xdw[layer][i], value=-1))
                if layer:
                    into = torch.bmm(g[layer][i], after[:, :-1].mT)
                    dx.append(torch.addcmul(from_x[layer - 1][i, :, :, :-1], rate[i], into, value=-1))
                torch.add(after, from_w[layer][i], out=dw[layer][i])
            bent, derivatives = [], []
            for layer in range(1, depth):
                derivative, curvature = _derivatives(z[layer - 1][i])
                bent.append(curvature.mul_(back[layer - 1][i]).mul_(dg[layer - 1]))
                derivatives.append(derivative)
                into = dg[layer - 1] * derivative
                dg[layer].baddbmm_(into, w[layer][i, :, :-1])
                dw[layer][i, :, :-1] += torch.bmm(into.mT, g[layer][i])
            dz = norm.step(i, dg[-1])
            for layer in reversed(range(depth)):
                dw[layer][i].baddbmm_(x[layer][i].mT, dz)
                if layer:
                    dx[layer] += torch.bmm(dz, w[layer][i, :, :-1].mT)
                    dz = bent[layer - 1].addcmul_(dx[layer], derivatives[layer - 1])
            dz_first[i] = dz
        dk = dz_first @ w[0][:-1].mT - rate * (g[0] @ dw[0][1:].mT)
        drate = -sum((part * errors).sum(-1, keepdim=True) for part, errors in zip(xdw, g, strict=True))
        return dk, norm.daim, drate, norm.dgain(), *(layer[0] for layer in dw)


class _NormBackward:
    """The backward pass of g = N'(a), a = aim + gain * N(z), a mini-batch at a time; `daim` fills up on the way."""

    def __init__(self, aim: Tensor, gain: Tensor, z: Tensor, g: Tensor, mean: Tensor, inverse: Tensor):
        self.gain, self.z, self.g, self.mean, self.inverse = gain, z, g, mean, inverse
        self.normed = (z - mean) * inverse
        a = torch.addcmul(aim, gain, self.normed)
        self.a_scaled = a * inverse
        self.overlap = (self.a_scaled * self.normed).mean(-1, keepdim=True)
        self.normed_scaled = self.normed * inverse
        self.daim = torch.empty_like(aim)

    def step(self, i: int, dg: Tensor) -> Tensor:
        """The gradient of z in mini-batch i from that of g; all [m, c, d]."""
        z, mean, inverse = self.z[i], self.mean[i], self.inverse[i]
        self.daim[i] = da = _jacobian(dg, z, mean, inverse)
        into = da * self.gain
        into.addcmul_(self.a_scaled[i], (dg * self.normed[i]).mean(-1, keepdim=True), value=-1)
        into.addcmul_(self.overlap[i], dg, value=-1)
        dz = _jacobian(into, z, mean, inverse)
        return dz.addcmul_((dg * self.g[i]).mean(-1, keepdim=True), self.normed_scaled[i], value=-1)

    def dgain(self) -> Tensor:
        """The gradient of the gain, [m, 1, d], once every mini-batch has had its step."""
        return (self.daim * self.normed).sum((0, 2))[:, None]


def _jacobian(a: Tensor, z: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """N'(a) at z: the layer norm's backward pass."""
    return _aten.native_layer_norm_backward(a, z, z.shape[-1:], mean, inverse, None, None, (True, False, False))[0]


def _derivatives(z: Tensor) -> tuple[Tensor, Tensor]:
    """gelu'(z) and gelu''(z) of the tanh form. With T = tanh(s (z + u z^3)) and p = s (1 + 3 u z^2),

    gelu' = (1 + T + z (1 - T^2) p) / 2,   gelu'' = (1 - T^2) (s (1 + 6 u z^2) - z T p^2)
    """
    s, u = math.sqrt(2 / math.pi), 0.044715
    square = z.square()
    t = square.mul(s * u).add_(s).mul_(z).tanh_()
    zp = square.mul(3 * s * u).add_(s)
    curvature = zp.square().mul_(t).mul_(z)
    rest = t.square().neg_().add_(1)
    derivative = zp.mul_(z).mul_(rest).add_(t).add_(1).mul_(0.5)
    return derivative, square.mul_(6 * s * u).add_(s).sub_(curvature).mul_(rest)
