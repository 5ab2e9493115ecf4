"""A class's settings: its constructor's signature, a parameter that is a dataclass opened into its fields."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from functools import lru_cache
from typing import Any

from schema.settings_check import fits

NO_SETTINGS = ("width", "heads", "index", "depth", "size", "feed", "model")  # given by whoever builds the model


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Every parameter of a class's constructor by name, annotated with its type; a dataclass stands as its fields.

    Raises ValueError where two would have one name.
    """
    found: dict[str, inspect.Parameter] = {}
    for name, parameter, kind in _typed(cls, cls.__init__):
        opened = parameters(kind) if _is_group(name, kind) else {name: parameter.replace(annotation=kind)}
        if twice := set(opened) & set(found):
            raise ValueError(f"{cls.__name__} has two settings called {min(twice)}; rename one of them.")
        found |= opened
    return found


def settings(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters that a user may set."""
    return {name: parameter for name, parameter in parameters(cls).items() if name not in NO_SETTINGS}


def construct(cls: type, *given: Any, **chosen: Any) -> Any:
    """`cls(*given, **chosen)`, the fields of its dataclasses chosen by their own names; a list is taken for a tuple."""
    own = dict(chosen)
    for name, _, kind in _typed(cls, cls.__init__):
        if _is_group(name, kind) and name not in own:
            own[name] = construct(kind, **{field: own.pop(field) for field in parameters(kind) if field in own})
        elif isinstance(own.get(name), list) and not fits(own[name], kind):
            own[name] = tuple(own[name])
    return cls(*given, **own)


@lru_cache(maxsize=1024)  # a search for a shape builds each of a model's layers a dozen times
def _typed(cls: type, constructor: Any) -> tuple[tuple[str, inspect.Parameter, Any], ...]:
    """Name, parameter and type of each parameter; a class may say its signature itself, with types that are no text."""
    hints, found = typing.get_type_hints(constructor), []
    for name, parameter in inspect.signature(cls).parameters.items():
        given = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
        found.append((name, parameter, hints.get(name, given)))
    return tuple(found)


def _is_group(name: str, kind: Any) -> bool:
    """Whether a parameter is settings that belong together: a frozen dataclass, but for the model's `size`."""
    frozen = isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
    return frozen and name not in NO_SETTINGS
