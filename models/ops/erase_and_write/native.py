"""Comparing, erasing and writing with keys of their own, compiled: `models/ops/scan/native.c` with a compare key of its own."""

from __future__ import annotations

from torch import Tensor

from models.ops.scan.native import Law, matrix_state


def native(
    q: Tensor,
    compare: Tensor,
    write: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor,
    erase: Tensor | None = None,
    before: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.erase_and_write.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered off the CPU and where no library can be built.
    """
    law = Law(log_forget.dim() - 2, compare=True, before=before, tied=False)
    if erase is None:
        return matrix_state(q, compare, write, v, log_forget, None, state, law)
    # Two rows a token: the first forgets, compares and erases, the second writes and is read.
    rows = (
        _paired(None, q),
        _paired(compare, None),
        _paired(erase, write),
        _paired(None, v),
        _paired(log_forget, None),
    )
    y, state = matrix_state(*rows, None, state, law)
    return y[:, 1::2], state


def _paired(first: Tensor | None, second: Tensor | None) -> Tensor:
    """[b, t, ...] twice -> [b, 2 t, ...], the two in turns; zeros for None."""
    given = first if first is not None else second
    pair = given.new_zeros(*given.shape[:2], 2, *given.shape[2:])
    for place, rows in enumerate((first, second)):
        if rows is not None:
            pair[:, :, place] = rows
    return pair.flatten(1, 2)
