"""The tasks: what is asked, and how it is scored. Knows no model and no stored result.

Any module of this folder, or of one below it, that defines a `Task` subclass with a `name` adds a task; nothing else
lists it. One of text, told by a setting `tokenizer`, can be asked after language modelling too (`train_on`).

    task = tasks.create("needle", template="compact", length=128)
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import Any

from schema import moved, shortened, suggestion
from schema.settings import construct, parameters
from schema.settings_check import check_settings as hold_settings
from tasks.task import TRAIN_ON, Task

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
            if not own or inspect.isabstract(value) or not hasattr(value, "name"):
                continue
            if value.name in found:
                other = found[value.name].__module__
                raise ValueError(f"Two tasks are called '{value.name}': rename the one in {other} or in {info.name}.")
            found[value.name] = value
    return found


def create(name: str, **settings: Any) -> Task:
    """The task `name` under these settings; ValueError in one sentence for an unknown name, setting or type.

    `train_on={"name": "language-modelling", ...}` gives a task of text after that training.
    """
    cls = class_of(name)
    if TRAIN_ON not in settings:
        return checked(name, cls, settings)
    check_settings(name, cls, settings)
    return _transfer().after_text(cls, settings)


def trained(name: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and settings of the task that a model is trained on which is asked `name` under `settings`."""
    cls = class_of(name)
    if issubclass(cls, _transfer().Alias):
        cls, settings = cls.asks, cls.meant(settings)
    if TRAIN_ON not in settings:
        return name, settings
    return settings[TRAIN_ON]["name"], _transfer().parted(cls, settings)[0]


def _transfer() -> ModuleType:
    # By its name: what this module imports, every task does, and language modelling is no part of most tasks' code.
    return importlib.import_module(f"{__name__}.language_modelling.transfer")


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
    """`cls(**settings)`, held to its signature as by `check_settings`."""
    check_settings(name, cls, settings)
    return construct(cls, **settings)


def check_settings(name: str, cls: type, settings: dict[str, Any]) -> None:
    """Raise ValueError, in one sentence, for a setting that `cls` has not, of the wrong type, or a list with a twin in it.

    Nothing is built and no data are read.
    """
    if TRAIN_ON in settings:
        settings = _transfer().check(name, cls, settings)
    hold_settings("Task", name, settings, parameters(cls))
    for setting, value in settings.items():
        if isinstance(value, list) and (twice := [item for i, item in enumerate(value) if item in value[:i]]):
            raise ValueError(f"Setting {name}.{setting} names {shortened(twice[0])} twice; name it once.")
