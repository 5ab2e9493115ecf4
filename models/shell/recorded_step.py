"""One token of a text whose state keeps its shape, from a record of what the step before it called.

A decoded token passes some hundred small operators, and what Python and PyTorch do around each takes longer than its arithmetic.
Where the shapes of a state come again, the calls come again: they are written down once, with the memory that they read and
wrote, and from then on made one after the other, without the layers' code around them. Products, order and memory are those of
the step that was written down, so the numbers are the same to the last digit; a record is used only after it has given the
digits that the layers gave, for TRIALS tokens.

Recorded is what runs without a gradient on a CPU in a few rows, where compiled code computes: a provider that asks for PyTorch
gets its layers. A record ends with what it hangs on: weights and buffers (a write through `parameter.data` is not seen), what
the modules hold, somebody who listens to one, the number of threads. A method that is put into a class afterwards is not seen,
nor a list that is changed in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models.ops import providers
from models.shell.record import NotRecorded, Record, recorded
from schema.terms import DECODING_WARM_UP

ROWS = 4  # beyond, arithmetic takes longer than what is spared
SETTLED = DECODING_WARM_UP  # times that a kind of state is met before its record is used
TRIALS = SETTLED - 2  # of them, at which the record is compared with the layers
IN_VAIN = 3  # records that ended before they were of use, after which there is no other
MOST = 64  # kinds of state that are remembered: a memory that fills up goes through one after the other
_allowed = True

Read = Callable[[Tensor, Any], tuple[Tensor, Any]]


@contextmanager
def without_records() -> Iterator[None]:
    """Inside, every token passes the layers."""
    global _allowed
    before, _allowed = _allowed, False
    try:
        yield
    finally:
        _allowed = before


class RecordedSteps:
    """The records of one model: `steps(model, read, tokens, state)` is `read(tokens, state)`, or None where there is none."""

    def __init__(self) -> None:
        self._entries: dict[tuple, _Entry] = {}
        self._lock = threading.Lock()

    def __call__(self, model: nn.Module, read: Read, tokens: Tensor, state: Any) -> tuple[Tensor, Any] | None:
        if not _is_step(tokens) or not self._lock.acquire(blocking=False):  # another thread is at it
            return None
        try:
            leaves: list[Tensor] = []
            form = form_of(state, leaves)
            if form is None:
                return None
            key = len(tokens), tokens.dtype, form, torch.get_num_threads(), torch.is_inference_mode_enabled()
            return self._taken(key, model, read, tokens, state, leaves)
        finally:
            self._lock.release()

    def _taken(
        self, key: tuple, model: nn.Module, read: Read, tokens: Tensor, state: Any, leaves: list[Tensor]
    ) -> tuple[Tensor, Any] | None:
        entry = self._entries.get(key)
        if entry is None:  # the first of its kind, which may never come again
            if len(self._entries) < MOST:
                self._entries[key] = _Entry()
            return None
        if entry.is_refused:
            return None
        if entry.record is None or not entry.record.holds():
            return entry.begun(model, read, tokens, state)
        entry.uses += 1
        return entry.tried(read, tokens, state, leaves) if entry.uses <= TRIALS else entry.record(tokens, leaves)

    def __deepcopy__(self, memo: dict) -> RecordedSteps:
        """Empty: a copy's weights lie elsewhere."""
        return RecordedSteps()

    def __reduce__(self) -> tuple:
        """Empty, as a copy is."""
        return RecordedSteps, ()


class _Entry:
    """What is known of one kind of state."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.uses = 0  # of the record
        self.is_refused = False
        self._in_vain = 0

    def begun(self, model: nn.Module, read: Read, tokens: Tensor, state: Any) -> tuple[Tensor, Any] | None:
        """What the layers say while a new record is made of them; None, and never again, where there can be none."""
        if self.record is not None and self.uses <= TRIALS:
            self._in_vain += 1
        self.record, self.uses = None, 0
        try:
            if self._in_vain < IN_VAIN:
                self.record, found = recorded(model, read, tokens, state)
                return found
        except NotRecorded:
            pass
        self.is_refused = True
        return None

    def tried(self, read: Read, tokens: Tensor, state: Any, leaves: list[Tensor]) -> tuple[Tensor, Any]:
        """What the layers say; the record is refused if it says anything else."""
        found = read(tokens, state)
        if not same(found, self.record(tokens, leaves)):
            self.record, self.is_refused = None, True
        return found


def _is_step(tokens: Tensor) -> bool:
    return (
        _allowed
        and type(tokens) is Tensor
        and tokens.dim() == 2
        and tokens.shape[1] == 1
        and 0 < tokens.shape[0] <= ROWS
        and not torch.is_grad_enabled()
        and tokens.is_cpu
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._len_torch_dispatch_stack()
        and not providers.is_probing()
    )


def form_of(state: Any, leaves: list[Tensor]) -> tuple | None:
    """How a state is made of tensors, which are put into `leaves`; None where it holds anything else, as a place in the text."""
    if type(state) is Tensor:
        if not state.is_cpu or state.requires_grad:
            return None
        leaves.append(state)
        return state.dtype, state.shape
    if type(state) is not tuple:
        return None
    parts = tuple([form_of(part, leaves) for part in state])
    return None if None in parts else parts


def same(one: Any, other: Any) -> bool:
    """Whether two states, or what a model returns, are the same to the last digit."""
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype is other.dtype and bool(torch.equal(one, other))
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
