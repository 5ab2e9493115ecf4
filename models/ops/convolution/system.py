"""What a linear time-invariant system does to a chunk of L tokens, as four real matrices a channel.

    y = inside x + reach S,   S' = keep S + enter^T x          S: h before the chunk, real and imaginary parts in turns

Without erasing they are powers of the diagonal a: inside[t, s] = <c, a^(t-s) b> for s <= t, reach[t] = c a^(t+1), enter[s] =
a^(L-1-s) b, keep = a^L. With erasing, e_t = <v, h_{t-1}> is an output that is fed back, of the diagonal system too:

    (I + X) e = past S + before x,   X[t, s] = <v, a^(t-1-s) u>, before[t, s] = <v, a^(t-1-s) b> for s < t,   past[t] = v a^t

so that with e = e_x x + e_S S and G[t, s] = <c, a^(t-s) u> the four are inside - G e_x, reach - G e_S, enter - e_x^T enter_u and
a^L - enter_u^T e_S. No power of a is divided by another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.convolution.powers import Sides


class System(NamedTuple):
    """The matrices of one length, for d channels of n complex numbers; `keep` is complex [d, n] if diagonal, else [d, 2n, 2n]."""

    inside: Tensor  # [d, L, L]
    reach: Tensor  # [d, L, 2n]
    enter: Tensor  # [d, L, 2n]
    keep: Tensor


def system(forget: Tensor, write: Tensor, read: Tensor, erase: tuple[Tensor, Tensor] | None, length: int) -> System:
    """The matrices of a chunk of `length` tokens."""
    reads, writes = (
        (read[None], write[None]) if erase is None else (torch.stack(two) for two in _paired(write, read, erase))
    )
    reach, enter, whole = Sides.apply(forget, reads, writes, length)
    kernels = enter @ as_reads(read)[..., None]  # <c, a^(L-1-s) b>, and for u
    if erase is None:
        return System(toeplitz(kernels[0, ..., 0]), reach[0], enter[0], whole)
    of_x, of_e = (toeplitz(kernel[..., 0]) for kernel in kernels)
    before_x, before_e = _fed_back(reach[1], writes)
    known = torch.cat([before_x, reach[1]], -1)
    erased = torch.linalg.solve_triangular(before_e, known, upper=False, unitriangular=True)
    by_x, by_state = erased[..., :length], erased[..., length:]
    return System(
        of_x - of_e @ by_x,
        reach[0] - of_e @ by_state,
        enter[0] - by_x.mT @ enter[1],
        _rotation(whole) - enter[1].mT @ by_state,
    )


def _paired(write: Tensor, read: Tensor, erase: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], ...]:
    return (read, erase[1]), (write, erase[0])


def _fed_back(past: Tensor, writes: Tensor) -> list[Tensor]:
    """`before` for b and for u: what e_t sees of the chunk's own tokens."""
    pairs = torch.view_as_real(writes).flatten(-2)
    kernels = (past @ pairs.permute(1, 2, 0)).flip(1)  # [d, L, 2], the newest last
    return [toeplitz(F.pad(kernels[..., k], (-1, 1))) for k in range(2)]


def as_reads(p: Tensor) -> Tensor:
    """Complex [d, n] as [d, 2n], whose product with a state is `<p, h>`."""
    return torch.view_as_real(2 * p.conj().resolve_conj()).flatten(-2)


def _rotation(a: Tensor) -> Tensor:
    """Multiplication by a [d, n] as a matrix [d, 2n, 2n]."""
    real, imaginary = torch.diag_embed(a.real), torch.diag_embed(a.imag)
    rows = torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)
    return torch.stack(rows, 2).flatten(3).flatten(1, 2)


def toeplitz(kernel: Tensor) -> Tensor:
    """[d, l], the newest last -> the lower triangular [d, l, l] whose entry (t, s) is kernel[l - 1 - (t - s)]."""
    length = kernel.shape[-1]
    return F.pad(kernel, (0, length - 1)).unfold(-1, length, 1).flip(1)
