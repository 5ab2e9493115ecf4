"""The tasks: what is asked, and how it is marked. Knows no model and no stored result.

Any module of this folder, or of one below it, that defines a `Task` subclass with a `name` adds a task; nothing else
lists it.

    task = tasks.create("needle", template="compact", length=128)
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from functools import lru_cache
from typing import Any

from schema import moved, shortened, suggestion
from tasks.task import Task

moved.install()


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return sorted(classes())


@lru_cache(maxsize=1)
def classes() -> dict[str, type[Task]]:
    """Every task class of these folders by its name; ValueError where two share one."""
    found: dict[str, type[Task]] = {}
    for info in pkgutil.walk_packages(__path__, __name__ + "."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            own = inspect.isclass(value) and value.__module__ == module.__name__ and issubclass(value, Task)
            if not own or inspect.isabstract(value):
                continue
            if value.name in found:
                other = found[value.name].__module__
                raise ValueError(f"Two tasks are called '{value.name}': rename the one in {other} or in {info.name}.")
            found[value.name] = value
    return found


def create(name: str, **settings: Any) -> Task:
    """The task `name` under these settings; ValueError in one sentence for an unknown name, setting or type."""
    return checked(name, class_of(name), settings)


def class_of(name: str) -> type[Task]:
    """The class of the task `name`; ValueError, which says the name that is near, for an unknown one."""
    if name not in classes():
        word = f"{shortened(name)}{suggestion(name, names())}"
        raise ValueError(f"There is no task {word}; the tasks are: {', '.join(names())}.")
    return classes()[name]


def describe(name: str) -> str:
    """The first line of a task's docstring: what it asks."""
    return inspect.getdoc(classes()[name]).splitlines()[0]


def checked(name: str, cls: type, settings: dict[str, Any]) -> Any:
    """`cls(**settings)`, its settings held to its signature: one sentence for one that is unknown or of the wrong type.

    A list is taken for a tuple, as TOML has no tuples.
    """
    return cls(**settings_for(name, cls, settings))


def settings_for(name: str, cls: type, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as `cls` takes them, held to its signature as in `checked`; nothing is built and no data are read."""
    parameters = inspect.signature(cls).parameters
    hints = typing.get_type_hints(cls.__init__)
    known = ", ".join(map(str, parameters.values())) or "none"
    taken = {}
    for setting, value in settings.items():
        if setting not in parameters:
            word = f"{shortened(setting)}{suggestion(setting, parameters)}"
            raise ValueError(f"Task '{name}' has no setting {word}; its settings are: {known}.")
        taken[setting] = tuple(value) if isinstance(value, list) else value
        if not _fits(taken[setting], hints.get(setting, Any)):
            near = suggestion(value, _words(hints[setting])) if isinstance(value, str) else ""
            shown = f"{name}.{setting}={shortened(value)}"
            raise ValueError(f"Setting {shown} has the wrong type{near}; its settings are: {known}.")
        if isinstance(value, list) and (twice := [item for i, item in enumerate(value) if item in value[:i]]):
            raise ValueError(f"Setting {name}.{setting} names {shortened(twice[0])} twice; name it once.")
    return taken


def _words(hint: Any) -> list[str]:
    """The words among a hint's alternatives."""
    if typing.get_origin(hint) is typing.Literal:
        return [word for word in typing.get_args(hint) if isinstance(word, str)]
    return [word for option in typing.get_args(hint) for word in _words(option)]


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple and arguments[-1] is Ellipsis:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    plain = origin or hint
    return isinstance(value, plain) if isinstance(plain, type) else True
