"""A linear memory that is read by the ridge regression over everything seen (von Oswald et al. 2025, arXiv 2506.05233):

    H_t = a_t H_{t-1} + b_t k_t k_t^T,   G_t = a_t G_{t-1} + b_t k_t v_t^T,   y_t = G_t^T (H_t + diag(l))^-1 q_t

which is what the matrix W that minimises `sum_s b_s a_{s+1} .. a_t |W^T k_s - v_s|^2 + |l^{1/2} W|^2` makes of q_t. Letters: b
batch, t time, h heads, k key width, v value width; forgetting is a logarithm <= 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

State = tuple[Tensor, Tensor]  # H [b, h, k, k] and G [b, h, k, v]
STEPS = 30


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor,
    rate: Tensor,
    ridge: Tensor,
    steps: int = STEPS,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The law over a text, each system solved exactly: y [b, t, h, v] and the state after its last token.

    Shapes: q, k [b, t, h, k]; v [b, t, h, v]; log_forget, rate [b, t, h]; ridge l [h, k]; None for a state of zeros. Forms that
    approach the solution take at most `steps` steps; this one takes none.
    """
    H, G = first_state(q, v) if state is None else (one.to(q.dtype) for one in state)
    ridge, ys = torch.diag_embed(ridge), []
    for t in range(q.shape[1]):
        forget, written = log_forget[:, t, :, None, None].exp(), (rate[:, t, :, None] * k[:, t])[..., None]
        H = forget * H + written * k[:, t, :, None]
        G = forget * G + written * v[:, t, :, None]
        x = torch.linalg.solve(H.mT + ridge, q[:, t])
        ys.append(torch.einsum("bhkv,bhk->bhv", G, x))
    return torch.stack(ys, dim=1) if ys else v.new_empty(v.shape), (H, G)


def first_state(q: Tensor, v: Tensor) -> State:
    """Zeros for a text of queries q [b, t, h, k] and values v [b, t, h, v]."""
    rows = q.shape[0], q.shape[2], q.shape[3]
    return q.new_zeros(*rows, q.shape[3]), q.new_zeros(*rows, v.shape[3])
