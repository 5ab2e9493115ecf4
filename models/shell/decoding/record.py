"""The record of one step: its calls with memory of their own, which are made again for another token and another state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.ops import providers, recording
from models.shell.decoding.calls import Call, Listener, ReadOut, joined, storage_of
from models.shell.decoding.moving import Inputs, Moving
from models.shell.decoding.place import Place, Places
from models.shell.decoding.returned import Returned
from models.shell.decoding.surroundings import Surroundings

LARGEST = 1 << 26  # bytes of tokens and state, of which a record holds its own
COPIED = 1 << 22  # of them, those that are copied at each token: more take longer than is spared
NATIVE = "native"  # the provider whose calls make a record worth its trouble


class NotRecorded(RuntimeError):
    """A step does something that a list of calls cannot do again; `asked` are the numbers of its state that it wants to know."""

    def __init__(self, message: str, asked: Sequence[int] = ()):
        super().__init__(message)
        self.asked = tuple(asked)


class Given(NamedTuple):
    """What a step is given: the tensors of tokens and state, and the state's numbers."""

    tensors: list[Tensor]
    numbers: list[int]


class Record:
    """The calls of a step: `record(given)` says where tokens and state lie, and where what is new is to lie, and calls."""

    def __init__(self, heard: Heard, found: Any):
        """`found` is what the layers returned of the step that was heard."""
        self.places, self.names = heard.places, tuple(heard.names)
        own, listener, kept = heard.inputs, heard.listener, heard.unchanged()
        needed = _needed(listener.calls, [*own, *self.places.tensors])
        self.returned = Returned(found, kept)
        moving = Moving(listener.calls, needed, [*listener.outside, *self.returned.storages()])
        self.inputs = Inputs(own, list(kept), moving)
        self.returned.written(moving)
        self.calls = joined([*moving.ahead_of(needed), *self.returned.calls])
        self.nbytes = sum(one.nbytes for one in own)  # of the state that it holds
        self._held = listener.held  # all memory that the calls name by its address
        self._hangs_on = Surroundings(heard.model)

    def holds(self) -> bool:
        """Whether the model is as it was when the step was written down."""
        return self._hangs_on.are_the_same()

    def __call__(self, given: Given) -> Any:
        self.inputs.put(given.tensors)
        self.places.put(given.numbers)
        made = self.returned.made()
        self.run()
        return self.returned.tree(made, given.tensors)

    def run(self) -> None:
        """Make the calls, with inputs and results where these were said to lie last."""
        for again, arguments in self.calls:
            again(*arguments)
        for name in self.names:
            providers.note(name)


class Heard(NamedTuple):
    """A step that was written down: what it was given, the same in memory of the record's own, and what it did with it."""

    model: nn.Module
    given: list[Tensor]
    inputs: list[Tensor]
    places: Places
    listener: Listener
    names: set[str]

    def unchanged(self) -> dict[int, Tensor]:
        """The inputs, by their places, that the step left as they were."""
        written, pairs = self.listener.written, enumerate(zip(self.inputs, self.given, strict=True))
        return {index: mine for index, (mine, theirs) in pairs if _is_left(mine, theirs, written)}


def recorded(
    model: nn.Module, read: Callable, tokens: Tensor, state: Any, numbers: Sequence[int], known: Sequence[int]
) -> tuple[Record, Any]:
    """The record of `read(tokens, state)`, and what that returned. Raises NotRecorded where there can be none.

    `numbers` are those of the state; of them the layers may know what those at `known` are.
    """
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise NotRecorded("Changes of weights made in inference mode are not counted.")
    places, given, inputs = Places(numbers, known), [tokens], [tokens.clone()]
    state = _own(state, given, inputs, iter(places.first))
    if sum(one.nbytes for one in inputs) > LARGEST:
        raise NotRecorded("Records of a state so large would hold too much, in as many as it has shapes.")
    listener = Listener([*inputs, *places.tensors, *model.parameters(), *model.buffers()])
    with recording.heard_by(listener), providers.watch() as names, ReadOut(listener), listener:
        found = _read(read, inputs[0], state, places)
    if listener.missing:
        raise NotRecorded(listener.missing)
    if NATIVE not in names or not _is_plain(found):
        raise NotRecorded("Nothing compiled computes here, or the state is made of more than tensors and numbers.")
    record = Record(Heard(model, given, inputs, places, listener, names), found)
    if record.inputs.copied + record.returned.copied > COPIED:
        raise NotRecorded("A large state takes longer to copy than is spared.")
    return record, _copied(found)


def _own(state: Any, given: list[Tensor], inputs: list[Tensor], places: Iterator[Any]) -> Any:
    """The state in memory of its own, with places for its numbers: tensors go behind `given`, their copies behind `inputs`."""
    if type(state) is int:
        return next(places)
    if state is None:
        return None
    if type(state) is tuple:
        return tuple([_own(part, given, inputs, places) for part in state])
    given.append(state)
    inputs.append(state.clone())  # laid out as it is given: a layer may ask for another way to lay it out
    return inputs[-1]


def _read(read: Callable, tokens: Tensor, state: Any, places: Places) -> Any:
    """What the layers say; where they want to know a place, or fail since a place is no number, NotRecorded says of which."""
    try:
        found = read(tokens, state)
    except Exception as error:
        if not places.unknown:
            raise
        raise NotRecorded("The layers ask for numbers.", places.asked or places.unknown) from error
    if places.asked:
        raise NotRecorded("The layers ask for numbers.", places.asked)
    return found


def _is_left(mine: Tensor, theirs: Tensor, written: set[int]) -> bool:
    return storage_of(mine) not in written and torch.equal(mine, theirs)


def _needed(calls: Sequence[Call], inputs: Sequence[Tensor]) -> list[Call]:
    """The calls without those whose results hang on weights alone and that nobody writes upon."""
    changing = {storage_of(tensor) for tensor in inputs}
    for call in calls:
        if not call.is_constant:
            changing |= call.writes
    found = []
    for call in calls:
        if not call.is_constant or call.reads & changing or call.writes & changing:
            changing |= call.writes
            found.append(call)
    return found


def _is_plain(found: Any) -> bool:
    if type(found) is tuple:
        return all(map(_is_plain, found))
    if isinstance(found, Tensor):
        return not vars(found)  # what else somebody wrote on it would be lost
    return isinstance(found, Place) or type(found) is int or found is None


def _copied(found: Any) -> Any:
    if type(found) is tuple:
        return tuple([_copied(part) for part in found])
    return found.clone() if isinstance(found, Tensor) else found.number if isinstance(found, Place) else found
