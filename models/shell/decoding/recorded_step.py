"""One token of a text whose state keeps its shape, from a record of what the step before it called.

A decoded token passes some hundred small operators, and what Python and PyTorch do around each takes longer than its arithmetic.
Where the shapes of a state come again, the calls come again: they are written down once, with the memory that they read and
wrote, and from then on made one after the other, without the layers' code around them. Products, order and memory are those of
the step that was written down, so the numbers are the same to the last digit; a record is used only after it has given the
digits that the layers gave, for TRIALS tokens.

A number in a state, such as the place in the text, may be another at each token so long as the layers only hand it to compiled
code, reckon with it in tensors and count on (`place.py`). A number that they look at, such as how many tokens the open segment
has, must come again, as within a segment it does.

Recorded is what runs without a gradient on a CPU in a few rows, where compiled code computes: a provider that asks for PyTorch
gets its layers. A record ends with what it hangs on: weights and buffers (a write through `parameter.data` is not seen), what
the modules hold, somebody who listens to one, the number of threads. A method that is put into a class afterwards is not seen,
nor a list that is changed in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.ops import providers
from models.shell.decoding.record import NATIVE, Given, NotRecorded, Record, recorded
from schema.terms import DECODING_WARM_UP

ROWS = 4  # beyond, arithmetic takes longer than what is spared
SETTLED = DECODING_WARM_UP  # times that a kind of state is met before its record is used
TRIALS = SETTLED - 2  # of them, at which the record is compared with the layers
IN_VAIN = 3  # records that ended before they were of use, after which there is no other
MOST = 160  # kinds of state that are remembered: a segment that fills up goes through one after the other
HELD = 1 << 28  # bytes of states in all records of a model
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


class _Step(NamedTuple):
    """One token to be read."""

    model: nn.Module
    read: Read
    tokens: Tensor
    state: Any
    given: Given


class RecordedSteps:
    """The records of one model: `steps(model, read, tokens, state)` is `read(tokens, state)`, or None where there is none."""

    def __init__(self) -> None:
        self._entries: dict[tuple, _Entry] = {}
        self._known: dict[tuple, tuple[int, ...]] = {}  # by form of state: which of its numbers the layers look at
        self._lock = threading.Lock()

    def __call__(self, model: nn.Module, read: Read, tokens: Tensor, state: Any) -> tuple[Tensor, Any] | None:
        if not _is_step(tokens) or not self._lock.acquire(blocking=False):  # another thread is at it
            return None
        try:
            given = Given([tokens], [])
            form = form_of(state, given)
            if form is None:
                return None
            kind = len(tokens), tokens.dtype, form, torch.get_num_threads(), torch.is_inference_mode_enabled()
            return self._taken(kind, _Step(model, read, tokens, state, given))
        finally:
            self._lock.release()

    def _taken(self, kind: tuple, step: _Step) -> tuple[Tensor, Any] | None:
        key = self._key(kind, step)
        entry = self._entries.get(key)
        if entry is None:  # the first of its kind, which may never come again
            return self._met(key, step)
        if entry.is_refused:
            return None
        if entry.record is None or not entry.record.holds():
            return self._begun(kind, entry, step)
        entry.uses += 1
        return entry.tried(step) if entry.uses <= TRIALS else entry.record(step.given)

    def _met(self, key: tuple | None, step: _Step) -> tuple[Tensor, Any] | None:
        """What the layers say to the first of a kind; where nothing compiled computed it, no record is tried for it."""
        entry = self._remember(key)
        if entry is None:
            return None
        with providers.watch() as names:
            found = step.read(step.tokens, step.state)
        entry.is_refused = NATIVE not in names
        return found

    def _key(self, kind: tuple, step: _Step) -> tuple | None:
        """The kind of state, with the numbers that the layers look at; None where these will not come again."""
        if kind not in self._known:
            return kind
        looked_at = [step.given.numbers[index] for index in self._known[kind]]
        return (*kind, *looked_at) if _come_again(looked_at, step.model) else None

    def _remember(self, key: tuple | None) -> _Entry | None:
        """An entry for a new kind of state, in the place of the oldest without a record where there are too many."""
        if key is None:
            return None
        if len(self._entries) >= MOST:
            idle = next((key for key, entry in self._entries.items() if entry.record is None), None)
            if idle is None:
                return None
            del self._entries[idle]
        return self._entries.setdefault(key, _Entry())

    def _begun(self, kind: tuple, entry: _Entry, step: _Step) -> tuple[Tensor, Any] | None:
        """What the layers say while a record is made of them; None, and never again, where there can be none."""
        if sum(one.record.nbytes for one in self._entries.values() if one.record is not None) > HELD:
            return None
        known = self._known.get(kind, ())
        try:
            return entry.begun(step, known)
        except NotRecorded as error:
            asked = {*known, *error.asked}
        if len(asked) == len(known):
            entry.is_refused = True
            return None
        self._known[kind] = tuple(sorted(asked))
        entry = self._remember(self._key(kind, step))
        return None if entry is None else self._begun(kind, entry, step)

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

    def begun(self, step: _Step, known: Sequence[int]) -> tuple[Tensor, Any]:
        """What the layers say while a new record is made of them. Raises NotRecorded where there can be none."""
        if self.record is not None and self.uses <= TRIALS:
            self._in_vain += 1
        self.record, self.uses = None, 0
        if self._in_vain >= IN_VAIN:
            raise NotRecorded("Too many records ended before they were of use.")
        self.record, found = recorded(step.model, step.read, step.tokens, step.state, step.given.numbers, known)
        return found

    def tried(self, step: _Step) -> tuple[Tensor, Any]:
        """What the layers say; the record is refused if it says anything else."""
        found = step.read(step.tokens, step.state)
        if not same(found, self.record(step.given)):
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


def _come_again(numbers: Sequence[int], model: nn.Module) -> bool:
    """Whether numbers that layers look at are such as a text goes through again and again, as the tokens of a segment are.

    A place in the whole text is not: records of single places would be of use to nobody but a benchmark.
    """
    return max(numbers) < getattr(model, "period", 1)


def form_of(state: Any, given: Given) -> tuple | str | None:
    """How a state is made of tensors and numbers, which are put into `given`; None where it holds anything else."""
    kind = type(state)
    if kind is Tensor:
        if (
            not state.is_cpu or state.requires_grad or vars(state)
        ):  # a cache knows how far it is filled, which a copy does not
            return None
        given.tensors.append(state)
        return state.dtype, state.shape
    if kind is int:
        given.numbers.append(state)
        return "number"
    if state is None:
        return "nothing"
    if kind is not tuple:
        return None
    parts = tuple([form_of(part, given) for part in state])
    return None if None in parts else parts


def same(one: Any, other: Any) -> bool:
    """Whether two states, or what a model returns, are the same to the last digit."""
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype is other.dtype and bool(torch.equal(one, other))
    if not isinstance(one, tuple):
        return type(one) is type(other) and one == other
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
