"""The recurrence of a layer by itself: what the layer gives it for an input, and how far its result is from the law's.

Side-by-side benchmarks of level "operation" time it so, without the projections, convolutions, norms and gates around it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from models.ops.providers import Operation

LAW = "recurrence"


class OtherForm(Operation):
    """A function in the place of an operation, whichever provider a layer asks for."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__("another form", __name__, {})
        self.function = function

    def form(self, provider: str) -> Callable[..., Any]:
        return self.function


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
    def error(self) -> float:
        """max |y - law| / max |law|, the law token by token in float64."""
        exact = self.turned(_exact)
        law = self.law(*exact.inputs, **exact.named)[0]
        return float((_exact(self()) - law).abs().max() / law.abs().max())


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A value with its tensors of floating or complex numbers changed, those of a tuple too."""
    if isinstance(value, tuple):
        return tuple(_changed(one, change) for one in value)
    is_number = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    return change(value) if is_number else value


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def given(mixer: nn.Module, x: Tensor, other: Callable[..., Any] | None = None) -> Given:
    """What `mixer`, a layer of ours, gives its recurrence for x [b, t, width]; `other` is called with it instead of our own.

    Raises ValueError as `place`.
    """
    holder, name = place(mixer)
    ours = getattr(holder, name)
    catching = _Catching(ours)
    with torch.no_grad(), patch.object(holder, name, catching):
        mixer(x)
    provider, inputs, named = catching.caught
    found = Given(other or partial(ours, provider=provider), ours.form(LAW), inputs, named)
    return found.turned(lambda one: one.detach().clone())
