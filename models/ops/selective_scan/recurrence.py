"""Mamba's selective scan as a row of the matrix state's law, token by token."""

from __future__ import annotations

from torch import Tensor

from models.ops.scan.recurrence import recurrence


def selective(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba's own spelling (arXiv 2312.00752, eq. 2): `h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t x_t; y_t = C_t h_t`.

    Every channel is a head of value width 1 whose N key channels forget by themselves. Shapes: x, delta [b, t, d];
    A [d, N] negative; B, C [b, t, N]; state [b, d, N]. Returns y [b, t, d] and the last state.
    """
    y, state = recurrence(
        C[:, :, None].expand(-1, -1, x.shape[2], -1),
        B[:, :, None].expand(-1, -1, x.shape[2], -1),
        (delta * x)[..., None],
        log_forget=delta[..., None] * A,
        state=None if state is None else state[..., None],
    )
    return y[..., 0], state[..., 0]
