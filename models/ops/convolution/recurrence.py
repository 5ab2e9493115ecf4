"""The law of a linear time-invariant system with one input and one output a channel, token by token.

Every channel has n complex numbers h, halves of conjugate pairs, so that what is read of them is twice a real part. With
`<p, h> = 2 Re sum_n p_n h_n`:

    h_t = a * h_{t-1} - u <v, h_{t-1}> + b x_t,   y_t = <c, h_t>

a, b, c, u, v do not depend on the token. Without u and v the transition is diagonal (S4D); with them it is diagonal less a
product of rank one, which is what any "diagonal plus low rank" system (S4) becomes in steps of fixed length: its O(N) step.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(
    x: Tensor,
    forget: Tensor,
    write: Tensor,
    read: Tensor,
    erase: tuple[Tensor, Tensor] | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The law over a text: y [b, t, d] in the dtype of x and the state after its last token.

    Shapes: x [b, t, d]; forget a, write b and read c complex [d, n], |a| < 1; erase (u, v), each complex [d, n], or None;
    state [b, d, n, 2], real and imaginary parts, None for zeros. Computed in the precision of `forget`.
    """
    kind = forget.real.dtype
    if state is None:
        state = forget.real.new_zeros(len(x), *forget.shape, 2)
    h, inputs, ys = torch.view_as_complex(state.to(kind).contiguous()), x.to(kind), []
    for t in range(x.shape[1]):
        kept = forget * h
        if erase is not None:
            kept = kept - erase[0] * _seen(erase[1], h)[..., None]
        h = kept + write * inputs[:, t, :, None]
        ys.append(_seen(read, h))
    y = torch.stack(ys, 1) if ys else inputs
    return y.to(x.dtype), torch.view_as_real(h)


def _seen(p: Tensor, h: Tensor) -> Tensor:
    """`<p, h>`, real [b, d]."""
    return 2 * (p * h).sum(-1).real
