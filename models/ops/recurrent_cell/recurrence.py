"""The laws of the recurrent cells, token by token. With R h the product of the recurrent weights and the last output:

    lstm                i, f, z, o = W x + R h + b;   i, f = sigmoid(. + p c),   c <- f c + i tanh(z),
                        o = sigmoid(o + p c),   h <- o tanh(c)                      the output's peephole sees the new c
    gru                 r, u, n = W x + b, R h;   r, u = sigmoid(sum),   h <- u h + (1 - u) tanh(n_x + r (n_h + b_n))
    gru-reset-before    the same, but   h <- u h + (1 - u) tanh(n_x + R_n (r h))
    janet               f, z = W x + R h + b;   h <- sigmoid(f) h + (1 - sigmoid(f - 1)) tanh(z)
    slstm               i, f, z, o = W x + R h + b;   C <- sigmoid(f) C + e^i tanh(z),   N <- sigmoid(f) N + e^i,
                        h <- sigmoid(o) C / N

The sLSTM carries c = C e^-m and n = N e^-m with the running maximum m <- max(log sigmoid(f) + m, i), the first i at the first
token, so that no exponent is above 0. C / N does not depend on m, which is a scale without gradient.

Papers: Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000 (forget gate), Gers and Schmidhuber 2000
(peepholes), in the form of Greff et al. 2016, arXiv 1503.04069. Cho et al. 2014, arXiv 1406.1078 (version 1 resets behind the
product, version 3 before). Van der Westhuizen and Lasenby 2018, arXiv 1804.04849. Beck et al. 2024, arXiv 2405.04517.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.recurrent_cell.cells import CELLS, inputs

States = tuple[Tensor, ...]  # [b, d] each, the output first
Product = Callable[..., Tensor]  # (h [b, d], rows of gates) -> [b, gates, d]


def lstm(x: Tensor, product: Product, states: States, peephole: Tensor | None) -> States:
    """One token of the LSTM; `peephole` [3, d] of input, forget and output gate."""
    h, c = states
    i, f, z, o = (x + product(h)).unbind(1)
    p_i, p_f, p_o = (0.0, 0.0, 0.0) if peephole is None else peephole
    c = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * z.tanh()
    return (o + p_o * c).sigmoid() * c.tanh(), c


def gru(x: Tensor, product: Product, states: States, candidate_bias: Tensor | None) -> States:
    """One token of the GRU whose reset gate stands behind the product, as cuDNN and torch have it."""
    (h,) = states
    r, u, inner = product(h).unbind(1)
    r, u = (x[:, 0] + r).sigmoid(), (x[:, 1] + u).sigmoid()
    inner = inner if candidate_bias is None else inner + candidate_bias
    return (u * h + (1 - u) * (x[:, 2] + r * inner).tanh(),)


def gru_reset_before(x: Tensor, product: Product, states: States) -> States:
    """One token of the GRU that resets the last output before the product."""
    (h,) = states
    r, u = (x[:, :2] + product(h, slice(0, 2))).sigmoid().unbind(1)
    return (u * h + (1 - u) * (x[:, 2] + product(r * h, slice(2, 3))[:, 0]).tanh(),)


def janet(x: Tensor, product: Product, states: States) -> States:
    """One token of JANET, the LSTM with a forget gate alone."""
    (h,) = states
    f, z = (x + product(h)).unbind(1)
    return (f.sigmoid() * h + (1 - (f - 1).sigmoid()) * z.tanh(),)


def slstm(x: Tensor, product: Product, states: States) -> States:
    """One token of the sLSTM."""
    h, c, n, m = states
    i, f, z, o = (x + product(h)).unbind(1)
    log_forget = F.logsigmoid(f)
    before, m = m.detach(), torch.maximum(log_forget + m, i).detach()
    forget, write = (log_forget + before - m).exp(), (i - m).exp()
    c, n = forget * c + write * z.tanh(), forget * n + write
    return o.sigmoid() * c / n, c, n, m


def recurrence(
    x: Tensor,
    weight: Tensor | None,
    recurrent: Tensor,
    *,
    cell: str,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    candidate_bias: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A cell over a text: y [b, t, d], the outputs h, and the state behind its last token.

    Shapes, g gates of d units in h heads of k = d / h: x [b, t, in] with weight [g d, in], or the products themselves as
    x [b, t, g d] with weight None; recurrent [h, g k, k], whose units hear those of their own head; bias [g d]; peephole
    [3, d] of the LSTM's input, forget and output gate; candidate_bias b_n [d] of the GRU; state [b, s, d], None at a text's
    beginning. Rows are sorted by gates, gates and states are in the order of `CELLS`. Half precision is computed in float32,
    states stay there.
    """
    dtype, gates = x.dtype, len(CELLS[cell].gates) if cell in CELLS else 0
    with torch.autocast(x.device.type, enabled=False):
        given = inputs(cell, x, weight, recurrent, bias, peephole, candidate_bias, state)
        x, states = given.x, given.state.unbind(1)
        blocks = given.recurrent.unflatten(1, (gates, -1))
        own = {"lstm": {"peephole": given.peephole}, "gru": {"candidate_bias": given.candidate_bias}}.get(cell, {})

        def product(h: Tensor, rows: slice = slice(None)) -> Tensor:
            h = h.unflatten(1, (len(blocks), -1))
            return torch.einsum("bhj,hgij->bghi", h, blocks[:, rows]).flatten(2)

        ys = []
        for t in range(x.shape[1]):
            token = x[:, t] if given.weight is None else x[:, t] @ given.weight.T
            token = token if given.bias is None else token + given.bias
            states = STEPS[cell](token.unflatten(1, (gates, -1)), product, states, **own)
            ys.append(states[0])
        y = torch.stack(ys, 1) if ys else x.new_zeros(len(x), 0, given.state.shape[2])
    return y.to(dtype), torch.stack(states, 1)


STEPS = {"lstm": lstm, "gru": gru, "gru-reset-before": gru_reset_before, "janet": janet, "slstm": slstm}
