"""The law of a liquid system: a linear time-invariant one whose inputs are also multiplied with what they find, up to a degree.

    h1_t = a * h1_{t-1} + b x_t,   hp_t = a * hp_{t-1} + b x_t * h(p-1)_{t-1},   y_t = 2 Re sum_n c_n (h1 + .. + hP)_tn

hp gathers the products of p inputs that `h_t = (a + b x_t) * h_{t-1} + b x_t` makes of a text: their sum over all p is that h.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(
    x: Tensor, forget: Tensor, write: Tensor, read: Tensor, degree: int, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The law over a text: y [b, t, d] in the dtype of x and the state after its last token.

    Shapes: x [b, t, d]; forget a, write b and read c complex [d, n]; P is `degree`; state [b, P, d, n, 2], None for zeros.
    """
    kind = forget.real.dtype
    if state is None:
        state = forget.real.new_zeros(len(x), degree, *forget.shape, 2)
    h, inputs, ys = torch.view_as_complex(state.to(kind).contiguous()), x.to(kind), []
    for t in range(x.shape[1]):
        given = write * inputs[:, t, :, None]
        met = torch.cat([torch.ones_like(h[:, :1]), h[:, :-1]], 1)
        h = forget * h + given[:, None] * met
        ys.append(2 * (read * h.sum(1)).sum(-1).real)
    y = torch.stack(ys, 1) if ys else inputs
    return y.to(x.dtype), torch.view_as_real(h)
