"""The recurrence of a layer by itself: what the layer gives it for an input, and how far its result is from the law's.

Side-by-side benchmarks of level "operation" time it so, without the projections, convolutions, norms and gates around it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from models.ops.providers import Operation
from models.shell.decoding.record import Record, recorded

LAW = "recurrence"
TRIALS = 4  # tokens by which a state that is written over itself is compared with one that is not
STATE = "state"  # what the last state is called among the inputs of all laws
WIDER = {
    "baselines.second_generation.mlstm": "exponential_memory"
}  # a recurrence that is more than one operation, by its module
Token = Callable[[], Tensor]  # one token from the state that the token before left: its output


class OtherForm(Operation):
    """A function in the place of an operation, whichever provider a layer asks for."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__("another form", __name__, {})
        self.function = function

    def form(self, provider: str) -> Callable[..., Any]:
        return self.function


class _Around(Operation):
    """A function around an operation, called as one: it takes a provider and hands it on."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__("around an operation", __name__, {})
        self.function = function

    def form(self, provider: str) -> Callable[..., Any]:
        return partial(self.function, provider=provider)


class _Catching(Operation):
    """An operation that keeps what it was called with."""

    def __init__(self, ours: Operation):
        super().__init__("what a layer gives", __name__, {})
        self.ours, self.caught = ours, ("", (), {})

    def form(self, provider: str) -> Callable[..., Any]:
        """The operation's own form, which keeps its inputs on the way."""

        def catch(*inputs: Any, **named: Any) -> Any:
            self.caught = (provider, inputs, named)
            return self.ours.form(provider)(*inputs, **named)

        return catch


def place(layer: nn.Module) -> tuple[object, str]:
    """Where a layer of ours holds its recurrence: a memory of Titans as its own, the others as a name of their module.

    Raises ValueError for a layer that has none or several.
    """
    if hasattr(layer, "memory") and isinstance(getattr(layer.memory, "operation", None), Operation):
        return layer.memory, "operation"
    module = sys.modules[type(layer).__module__]
    if module.__name__ in WIDER:
        return module, WIDER[module.__name__]
    names = [name for name, value in vars(module).items() if isinstance(value, Operation)]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise ValueError(
            f"The layer {type(layer).__name__} has not one recurrence ({found}); time it at level = 'layer'."
        )
    return module, names[0]


@dataclass(frozen=True)
class Given:
    """What a layer gives its recurrence: the function that it calls, its inputs, and the law of the operation."""

    function: Callable[..., Any]
    law: Callable[..., Any]
    inputs: tuple[Any, ...]
    named: dict[str, Any]

    def turned(self, change: Callable[[Tensor], Tensor]) -> Given:
        """The same with each tensor of floating or complex numbers changed."""
        own = [_changed(one, change) for one in self.inputs]
        return Given(self.function, self.law, tuple(own), {k: _changed(v, change) for k, v in self.named.items()})

    def __call__(self) -> Tensor:
        """The recurrence's outputs, without the state that it ends in."""
        return self.function(*self.inputs, **self.named)[0]

    def tensors(self) -> list[Tensor]:
        """The inputs that a gradient goes to."""
        found: list[Tensor] = []
        self.turned(lambda one: found.append(one) or one)
        return found

    @torch.no_grad()
    def error(self, y: Tensor | None = None) -> float:
        """max |y - law| / max |law|, the law token by token in float64; y is the function's own unless it is given."""
        exact = self.turned(_exact)
        law = self.law(*exact.inputs, **exact.named)[0]
        y = self() if y is None else y
        return float((_exact(y).reshape(law.shape) - law).abs().max() / law.abs().max())

    def carried(self) -> Token:
        """The function as the layer calls it, again and again from the state that it left."""
        inputs, named = self._apart()

        def token() -> Tensor:
            y, named[STATE] = self.function(*inputs, **named)
            return y

        return token

    def recorded(self) -> Token:
        """The same from a record, as models decode (`models.shell.decoding`): its calls alone, with inputs where these read them.

        Where that gives the same digits, output and state are written over those of the token before, which nobody else holds.
        Raises NotRecorded where there can be no record, as for what is not compiled; ValueError for a state that grows or counts.
        """
        inputs, named = self._apart()
        with torch.no_grad():
            after = self.function(*inputs, **named)[1]
        if _shapes(after) != _shapes(named[STATE]):
            raise ValueError("A recurrence alone has a record where its state keeps its shapes and counts nothing.")

        def read(first: Tensor, others: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            own = iter((first, *others))
            there = Given(self.function, self.law, inputs, named).turned(lambda _: next(own))
            y, after = there.function(*there.inputs, **there.named)
            return y, tuple(_tensors(after))

        tensors, state = Given(self.function, self.law, inputs, named).tensors(), _tensors(named[STATE])
        with torch.no_grad():
            record, _ = recorded(nn.Module(), read, tensors[0], tuple(tensors[1:]), [], ())
            places = [place for place, one in enumerate(tensors) if any(one is part for part in state)]
            over, apart = (partial(way, record, tensors, places) for way in (_written_over, _in_turn))
            tried, expected = ([token().clone() for _ in range(TRIALS)] for token in (way() for way in (over, apart)))
            return over() if all(map(torch.equal, tried, expected)) else apart()

    def _apart(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs with the state, and what is behind it, by name."""
        names = list(inspect.signature(self.law).parameters)
        before = names.index(STATE)
        return self.inputs[:before], {**dict(zip(names[before:], self.inputs[before:], strict=False)), **self.named}


def _written_over(record: Record, tensors: list[Tensor], places: list[int]) -> Token:
    """A token from a record, its output and the state, whose tensors are at `places`, written over those of the token before."""
    tensors = [one.clone() for one in tensors]
    y, *_ = made = record.returned.made()
    record.inputs.put(tensors)
    record.returned.put([y, *(tensors[place] for place in places)])

    def token(held: Any = (tensors, made)) -> Tensor:  # the calls know no more of tensors than where they lie
        record.run()
        return y

    return token


def _in_turn(record: Record, tensors: list[Tensor], places: list[int]) -> Token:
    """The same, output and state in memory of their own."""
    tensors = [one.clone() for one in tensors]

    def token() -> Tensor:
        record.inputs.put(tensors)
        y, *states = record.returned.made()
        record.run()
        for place, state in zip(places, states, strict=True):
            tensors[place] = state
        return y

    return token


def _tensors(state: Any) -> list[Tensor]:
    return [one for part in state for one in _tensors(part)] if isinstance(state, tuple) else [state]


def _shapes(state: Any) -> Any:
    """How a state is made of tensors, a new object for what is none: it is the same as nothing else."""
    if isinstance(state, tuple):
        return tuple(map(_shapes, state))
    return state.shape if isinstance(state, Tensor) else object()


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A value with its tensors of floating or complex numbers changed, those of a tuple too."""
    if isinstance(value, tuple):
        return tuple(_changed(one, change) for one in value)
    is_number = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    return change(value) if is_number else value


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def given(mixer: nn.Module, x: Tensor, other: Callable[..., Any] | None = None, last: bool = False) -> Given:
    """What `mixer`, a layer of ours, gives its recurrence for x [b, t, width]; `other` is called with it instead of our own.

    With `last` it is what it gives for the last token, behind the others. Raises ValueError as `place`.
    """
    holder, name = place(mixer)
    ours = getattr(holder, name)
    ours = ours if isinstance(ours, Operation) else _Around(ours)
    catching = _Catching(ours)
    with torch.no_grad():
        state = mixer(x[:, :-1])[1] if last and x.shape[1] > 1 else None
        with patch.object(holder, name, catching):
            mixer(x[:, -1:] if last else x, state)
    provider, inputs, named = catching.caught
    found = Given(other or partial(ours, provider=provider), ours.form(LAW), inputs, named)
    return found.turned(lambda one: one.detach().clone())
