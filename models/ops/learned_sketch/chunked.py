"""Learned sketches over many small vectors, in tiles that stay in the cache; backward by hand.

A tile's tokens stand side by side in columns, which makes long products of short ones. Backward a tile is computed again: its
hidden units are sixteen times what it returns. gelu is the tanh form, x sigmoid(c (x + 0.0447 x^3)), which on a CPU takes a
third of the time of tanh; c goes into the maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.learned_sketch.recurrence import EPS

TILE = 1024  # vectors at once on a CPU
SLOPE = 2 * math.sqrt(2 / math.pi)  # c
CUBE = 0.044715 / SLOPE**2


def chunked(x: Tensor, up: Tensor, down: Tensor, next_up: Tensor, next_down: Tensor) -> Tensor:
    """`models.ops.learned_sketch.recurrence.recurrence` in tiles; same shapes."""
    y = _Sketch.apply(x.reshape(-1, x.shape[-1]), *scaled(x.dtype, up, down, next_up, next_down))
    return y.view(*x.shape[:-1], down.shape[1])


def scaled(kind: torch.dtype, up: Tensor, down: Tensor, next_up: Tensor, next_down: Tensor) -> tuple[Tensor, ...]:
    """The maps in a dtype, with c in them."""
    up, down, next_up, next_down = (part.to(kind) for part in (up, down, next_up, next_down))
    return tuple(part.contiguous() for part in (SLOPE * up, down / SLOPE, SLOPE * next_up, next_down / SLOPE))


class _Room(NamedTuple):
    """Where a tile's hidden units stand [2, hidden, n]: given memory again for each, a CPU spends most of its time on that."""

    hidden: Tensor
    share: Tensor
    active: Tensor
    next_hidden: Tensor
    next_share: Tensor
    next_active: Tensor
    gradient: Tensor
    spare: Tensor


def _gelu(x: Tensor, share: Tensor, active: Tensor) -> None:
    """c gelu(x / c) into `active`, and the sigmoid in it into `share`."""
    torch.mul(x, x, out=active)
    torch.addcmul(x, x, active, value=CUBE, out=share).sigmoid_()
    torch.mul(x, share, out=active)


def _gelu_back(x: Tensor, share: Tensor, gradient: Tensor, spare: Tensor) -> None:
    """The gradient of x in place of that of c gelu(x / c): times share (1 + (1 - share) (x + 3 CUBE x^3))."""
    torch.mul(x, x, out=spare)
    torch.addcmul(x, x, spare, value=3 * CUBE, out=spare)
    spare.addcmul_(spare, share, value=-1)
    gradient.mul_(share)
    gradient.addcmul_(gradient, spare)


def _with_ones(x: Tensor) -> Tensor:
    """[.., k, n] -> [.., k + 1, n], the last row ones."""
    wide = x.new_empty(*x.shape[:-2], x.shape[-2] + 1, x.shape[-1])
    wide[..., :-1, :] = x
    wide[..., -1, :] = 1
    return wide


def _tile(room: _Room, x: Tensor, up: Tensor, down: Tensor, next_up: Tensor, next_down: Tensor) -> tuple[Tensor, ...]:
    """The small values on the way from x [d, n] to tanh's output [r, n]; the hidden units go into the room."""
    x = _with_ones(x)
    torch.mm(up.flatten(0, 1), x, out=room.hidden.flatten(0, 1))
    _gelu(room.hidden, room.share, room.active)
    y = down @ room.active
    y -= y.mean(1, keepdim=True)
    scale = (y * y).mean(1, keepdim=True).add_(EPS).rsqrt_()
    y = _with_ones(y.mul_(scale))
    torch.bmm(next_up, y, out=room.next_hidden)
    _gelu(room.next_hidden, room.next_share, room.next_active)
    nets = next_down @ room.next_active
    return x, scale, y, nets, (nets[0] * nets[1]).mul_(len(nets[0]) ** -0.5).tanh_()


class _Sketch(torch.autograd.Function):
    """`apply(x, up, down, next_up, next_down)` -> g [n, r] of x [n, d]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor):
        ctx.save_for_backward(x, *weights)
        y = x.new_empty(len(x), weights[1].shape[1])
        for tile, room in _tiles(x, weights[0].shape[1]):
            y[tile] = _tile(room, x[tile].T, *weights)[-1].T
        return y.mul_(y.shape[1] ** 0.5)

    @staticmethod
    @by_hand
    def backward(ctx: Any, gradient: Tensor):
        given, *weights = ctx.saved_tensors
        up, down, next_up, next_down = weights
        dgiven = torch.empty_like(given)
        dup, ddown, dnext_up, dnext_down = gradients = [torch.zeros_like(part) for part in weights]
        for tile, room in _tiles(given, up.shape[1]):
            x, scale, y, nets, out = _tile(room, given[tile].T, *weights)
            dnets = nets.flip(0).mul_((1 - out.square_()).mul_(gradient[tile].T))
            dnext_down.baddbmm_(dnets, room.next_active.mT)
            torch.bmm(next_down.mT, dnets, out=room.gradient)
            _gelu_back(room.next_hidden, room.next_share, room.gradient, room.spare)
            dnext_up.baddbmm_(room.gradient, y.mT)
            dy, y = (next_up.mT @ room.gradient)[:, :-1], y[:, :-1]
            dy = (dy - dy.mean(1, keepdim=True) - y * (y * dy).mean(1, keepdim=True)).mul_(scale)
            ddown.baddbmm_(dy, room.active.mT)
            torch.bmm(down.mT, dy, out=room.gradient)
            _gelu_back(room.hidden, room.share, room.gradient, room.spare)
            dhidden = room.gradient.flatten(0, 1)
            dup.flatten(0, 1).addmm_(dhidden, x.T)
            dgiven[tile] = (up.flatten(0, 1)[:, :-1].T @ dhidden).T
        return dgiven, *gradients


def _tiles(x: Tensor, hidden: int) -> Iterator[tuple[slice, _Room]]:
    """Rows of x at a time, and room for their hidden units."""
    size, room = min(len(x), TILE) if x.device.type == "cpu" else len(x), None
    for start in range(0, len(x), max(1, size)):
        stop = min(start + size, len(x))
        if room is None or room.spare.shape[-1] != stop - start:
            room = _Room(*x.new_empty(len(_Room._fields), 2, hidden, stop - start).unbind(0))
        yield slice(start, stop), room
