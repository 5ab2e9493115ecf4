"""What the cells' loops share: the product of a token, the gates' rows, the gradient of the recurrent weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PAYS = 16  # tokens


def product_of(like: Tensor) -> Callable[..., Tensor]:
    """`(added, a, b, out)`: added + a b, of matrices [b, k] or of one for each head [h, b, k]."""
    return torch.addmm if like.dim() == 2 else torch.baddbmm


def columns(recurrent: Tensor, time: int) -> Tensor:
    """The recurrent weights as every token multiplies by them, [.., k, g k]; copied only where the text pays for it."""
    return recurrent.mT.contiguous() if time >= PAYS else recurrent.mT


def gates_of(x: Tensor, count: int) -> Tensor:
    """[.., g k] -> [.., g, k], a view."""
    return x.unflatten(-1, (count, -1))


def slots(gates: Tensor, first: int, last: int | None = None) -> tuple[Tensor, ...]:
    """One gate [.., k], or the gates from `first` to before `last` [.., g, k], for each token: views."""
    part = gates.select(-2, first) if last is None else gates[..., first:last, :]
    return part.unbind(0)


def beside(x: Tensor) -> Tensor:
    """[.., k] -> [.., 1, k], to stand against several gates."""
    return x.unsqueeze(-2)


def recurrent_gradient(dgates: Tensor, heard: Tensor) -> Tensor:
    """dR [g k, k] or [h, g k, k] from the slopes of R h [t, .., b, g k] and the outputs that were heard [t, .., b, k]."""
    if heard.dim() == 3:
        return dgates.flatten(0, 1).mT @ heard.flatten(0, 1)
    dgates, heard = (x.transpose(0, 1).flatten(1, 2) for x in (dgates, heard))
    return dgates.mT @ heard


def units_gradient(slopes: Tensor, dim: int) -> Tensor:
    """The sum over tokens and rows of [t, .., b, k], for weights that each unit has for itself."""
    return slopes.sum((0, 1)) if dim == 3 else slopes.sum((0, 2))[:, None]


def carry_back(dy: Tensor, slopes: Tensor, keep: Tensor, recurrent: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of all outputs [t, ..] and of the state before them, of a cell whose output is all that it carries.

    The slope of each row of R h is `slopes` [t, .., g, k] times that of the output, and takes its place; `keep` is what passes by
    the gates, beside them.
    """
    product, dhs = product_of(keep[0]), torch.empty_like(dy, memory_format=torch.contiguous_format)
    rows, flat = slopes.unbind(0), slopes.flatten(-2).unbind(0)
    dh, dy, kept, found = dhs[-1].copy_(dy[-1]), dy.unbind(0), keep.unbind(0), dhs.unbind(0)
    for t in reversed(range(len(rows))):
        rows[t].mul_(beside(dh))
        through = torch.addcmul(dy[t - 1], dh, kept[t]) if t else dh * kept[t]
        dh = product(through, flat[t], recurrent, out=found[t - 1] if t else through)
    return dhs, dh
