"""Holds settings to a signature, by pydantic's strict mode: one sentence about a name or a type that does not fit."""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pydantic

from schema.words import shortened, suggestion


def check_settings(what: str, name: str, settings: Mapping[str, Any], known: Mapping[str, inspect.Parameter]) -> None:
    """Raise ValueError, printing the signature, for a setting that is not `known` or has the wrong type.

    `what` is the kind of thing that is called `name`: "Model", "Task". A list passes for a tuple, as TOML has no tuples.
    """
    listed = ", ".join(map(str, known.values())) or "none"
    for setting, value in settings.items():
        if setting not in known:
            word = f"{shortened(setting)}{suggestion(setting, known)}"
            raise ValueError(f"{what} '{name}' has no setting {word}; its settings are: {listed}.")
        annotation = known[setting].annotation
        if not fits(value, annotation) and not (isinstance(value, list) and fits(tuple(value), annotation)):
            near = suggestion(value, _words(annotation)) if isinstance(value, str) else ""
            shown = f"{name}.{setting}={shortened(value)}"
            raise ValueError(f"Setting {shown} has the wrong type{near}; its settings are: {listed}.")


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of an annotation's type: whole numbers pass as numbers, booleans as none; what is no type fits."""
    reader = _reader(annotation)
    try:
        if reader is not None:
            reader.validate_python(value, strict=True)
    except (pydantic.ValidationError, RecursionError):
        return False
    return True


@lru_cache(maxsize=256)
def _reader(annotation: Any) -> pydantic.TypeAdapter | None:
    """What reads values of an annotation; None for one that pydantic knows no way to check."""
    if annotation is inspect.Parameter.empty:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic's word that an annotation is no type
            return pydantic.TypeAdapter(annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.errors.PydanticUserError:
        return None


def _words(annotation: Any) -> list[str]:
    """The words among an annotation's alternatives."""
    if typing.get_origin(annotation) is typing.Literal:
        return [word for word in typing.get_args(annotation) if isinstance(word, str)]
    return [word for option in typing.get_args(annotation) for word in _words(option)]
