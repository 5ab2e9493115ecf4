"""The calls that models make of operations: what every fast form is held to its law on, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from models.language_model import build
from models.ops.providers import Operation
from models.shell.model import Size

TOKENS = 130  # two chunks of 64 and a rest
SIZE = Size(vocab=64, width=64, depth=3, heads=2)  # the least depth that every registered model can be built at


class Made(NamedTuple):
    """An operation's name and what it was called with."""

    operation: str
    inputs: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One operation as models call it: its inputs on the CPU, in the digits that they have there, and which models do so.

    `decodes`: it is one token behind others, which no training asks a gradient of.
    """

    operation: str
    inputs: tuple[Any, ...]
    named: dict[str, Any]
    dtype: str
    decodes: bool
    models: tuple[str, ...]

    @property
    def what(self) -> str:
        """Its shapes and settings in words: equal for equal calls."""
        return said(self.inputs, self.named)


def of(
    names: Sequence[str],
    dtype: str,
    told: Callable[[str], None] = lambda name: None,
    lost: dict[str, str] | None = None,
) -> list[Call]:
    """Every distinct call that these models make, in `dtype` ("float32", or "bfloat16" under autocast).

    Each reads a text of 130 tokens, then one token behind it. Calls are the same if operation, shapes and settings are; the first
    model's numbers stand for all. `told` hears of each model before it is built; one that raises is put into `lost`, if
    given, with why.
    """
    found: dict[tuple[Any, ...], tuple[Made, list[str]]] = {}
    for name in names:
        told(name)
        try:
            calls = list(_made(name, dtype))
        except Exception as error:
            if lost is None:
                raise
            lost[name] = f"{type(error).__name__}: {error}"
            continue
        for decodes, made in calls:
            key = made.operation, decodes, said(made.inputs, made.named)
            found.setdefault(key, (made, []))[1].append(name)
    return [Call(*made, dtype, key[1], tuple(dict.fromkeys(who))) for key, (made, who) in found.items()]


def _made(name: str, dtype: str) -> Iterator[tuple[bool, Made]]:
    torch.manual_seed(0)
    tokens = torch.randint(SIZE.vocab, (2, TOKENS + 1))
    half = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
    with half, recorded() as read:
        model = build(name, SIZE)
        model(tokens[:, :TOKENS])  # as in training, where an added memory is its base
        with torch.no_grad():
            _, state = model.eval()(tokens[:, :TOKENS])
            before = len(read)
            model(tokens[:, TOKENS:], state)
    return ((place >= before, made) for place, made in enumerate(read))


@contextmanager
def recorded() -> Iterator[list[Made]]:
    """Collect what every operation is called with inside the block, by whoever took its form there."""
    calls: list[Made] = []
    form = Operation.form

    def noted(operation: Operation, provider: str) -> Callable:
        function = form(operation, provider)

        def called(*inputs: Any, **named: Any) -> Any:
            calls.append(Made(operation.name, _kept(inputs), _kept(named)))
            return function(*inputs, **named)

        return called

    with patch.object(Operation, "form", noted):
        yield calls


def _kept(values: Any) -> Any:
    return tree_map_only(Tensor, lambda x: x.detach().clone(), values)


def said(inputs: Sequence[Any], named: dict[str, Any]) -> str:
    """Shapes and settings in a line."""
    return ", ".join([_word(x) for x in inputs] + [f"{name} {_word(x)}" for name, x in sorted(named.items())])


def _word(value: Any) -> str:
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape)) or "a number"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_word, value))})"
    return getattr(value, "__name__", str(value)) if callable(value) else str(value)
