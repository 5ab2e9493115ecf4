"""The ridge regression's read with each system solved by Cholesky's factors, compiled. The C lies in `native.c`.

A system of K keys takes K^3 / 6 products and sums, as many as a few steps of conjugate gradients; chunks lie side by side in a
register, each with the matrix of its own token. Scans are the compiled one, the rest is the form in chunks.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from models.ops.native_build import REGISTER, address, kind_of, lanes, library, pointer, without_autocast
from models.ops.providers import NotCovered
from models.ops.ridge_read.chunked import Means, Systems, by_chunks
from models.ops.ridge_read.recurrence import STEPS, State
from models.ops.scan.native import native as scan

SOURCE = Path(__file__).with_name("native.c")
MOST = 64  # keys: the factors of wider systems leave the second cache, and cost more than steps


class _Systems(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("tiles", "tokens", "heads")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("k", "forget", "rate", "ridge", "states")]


def native(
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
    """`models.ops.ridge_read.recurrence.recurrence` compiled, each system solved exactly; same shapes.

    Half precision is computed in float32, states stay there. Raises NotCovered for more than 64 keys, where fewer steps than an
    exact solution may take are asked for, off the CPU and where no library can be built.
    """
    keys = q.shape[-1]
    if keys > MOST:
        raise NotCovered(
            f"Provider 'native' solves systems of at most {MOST} keys, not of {keys}; use auto or chunked."
        )
    if steps < min(keys, STEPS):
        raise NotCovered(
            f"Provider 'native' solves exactly, not by {steps} steps; use auto or chunked, or raise steps."
        )
    library(SOURCE, kind_of(q), **_macros(keys, kind_of(q)))
    with without_autocast():
        return by_chunks(q, k, v, log_forget, rate, ridge, Means(_solved, _scanned), state)


def _macros(keys: int, kind: torch.dtype) -> dict[str, int]:
    return {"K": keys, "LANES": lanes(REGISTER, kind)}


def _solved(systems: Systems, right: Tensor) -> Tensor:
    """x with M x = right [n, m, c, k]."""
    chunks, heads, tokens, keys = right.shape
    k, rate, states, right = (x.contiguous() for x in (systems.k, systems.rate, systems.states, right))
    forget, ridge, x = systems.log_forget.exp().contiguous(), systems.ridge.contiguous(), torch.empty_like(right)
    given = _Systems(chunks * heads, tokens, heads, *(address(one) for one in (k, forget, rate, ridge, states)))
    built = library(SOURCE, right.dtype, **_macros(keys, right.dtype))
    built.solve(ctypes.byref(given), pointer(right), pointer(x), torch.get_num_threads())
    return x


def _scanned(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The Hebbian scan over n chunks of c tokens for m states: q, k [n, m, c, k], v [n, m, c, v], log_forget [n, m, c]."""
    chunks, _, tokens, _ = q.shape
    q, k, v, log_forget = (x.transpose(0, 1).flatten(1, 2)[:, :, None] for x in (q, k, v, log_forget))
    y, state = scan(q, k, v, log_forget=log_forget, state=state[:, None])
    return y[:, :, 0].unflatten(1, (chunks, tokens)).transpose(0, 1), state[:, 0]
