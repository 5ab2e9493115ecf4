"""Every model by name, and the families they belong to.

A class joins with one decorator in its own file, and nothing else is touched. Its family is what the folder that the file
lies in says in its `__init__.py` (`FAMILY`); a file from anywhere else joins the family `yours`. This module knows no model:
`import baselines` (and `models.titans`) is what fills it.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.family import OTHERS, YOURS, Family
from models.law import NONE, Law
from schema import shortened


@dataclass(frozen=True)
class Entry:
    """One registered class: a token mixer, a whole language model or a memory added to one, and where it comes from."""

    name: str
    cls: type
    group: Family
    paper: str
    equation: str
    file: Path

    @property
    def family(self) -> str:
        """The name of its family, as rows carry it."""
        return self.group.name

    @property
    def family_order(self) -> int:
        """Place of the family in history, by which tables and figures are ordered."""
        return self.group.place

    @property
    def law(self) -> Law:
        """What it forgets, compares, writes and reads, as its class says; dashes if it says nothing."""
        return self.says("law", {}, NONE)

    @property
    def reading(self) -> str:
        """In one sentence what is our own reading of the paper, as its class says; "" where the paper or its code decide."""
        return self.says("reading", {}, "")

    @property
    def is_language_model(self) -> bool:
        """True if the class is a whole language model or holds one, False if it is a token mixer (it begins with `width`)."""
        return _first_setting(self.cls) != "width"

    @property
    def adds_memory(self) -> bool:
        """True if the class adds a memory to a trained language model, which its first setting, `model`, is."""
        return _first_setting(self.cls) == "model"

    def trained_as(self, settings: Mapping[str, Any]) -> tuple[Entry, dict[str, Any]]:
        """The entry and the settings that the weights are trained under: of what a memory is added to, else its own."""
        if not self.adds_memory:
            return self, dict(settings)
        name, own = self.cls.trains_as(settings)
        return entry(name), own

    def takes(self, provider: str) -> bool:
        """Whether a provider that is asked for all models of a run, or all layers of a hybrid, is meant for this class.

        One that names its `providers`, as softmax attention does, is left under `auto` by all others.
        """
        return provider in ("auto", *getattr(self.cls, "providers", (provider,)))

    def says(self, name: str, settings: Mapping[str, Any], default: Any = None) -> Any:
        """What the class says of itself under these settings: its attribute, unless its `declares(settings)` knows better."""
        declares = getattr(self.cls, "declares", None)
        own = declares(settings) if declares else {}
        return own[name] if name in own else getattr(self.cls, name, default)

    def parts(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The registered models that the class takes its layers from under these settings, by its `made_of(settings)`."""
        found = getattr(self.cls, "made_of", None)
        return tuple(found(settings)) if found else ()


class UnknownModel(KeyError):
    """No model of that name is registered."""

    def __str__(self) -> str:
        return str(self.args[0])


_entries: dict[str, Entry] = {}


def register(name: str, *, paper: str, equation: str) -> Callable[[type], type]:
    """Class decorator: enter a token mixer or a language model under `name` (lower case, hyphens).

    A token mixer's constructor begins `(self, width, heads, ...)`, a language model's `(self, size, ...)`, that of a memory
    added to a trained language model `(self, model, ...)` (`models/shell/added_memory.py`). `paper` says
    authors, year and arXiv number; `equation` is the update in one line. Raises ValueError for a name that is taken by
    another file, a constructor of neither form, or a `law` that is no Law.
    """

    def enter(cls: type) -> type:
        if _first_setting(cls) not in ("width", "size", "model"):
            raise ValueError(
                f"{cls.__name__} cannot be registered as '{name}': its constructor must begin (self, width, heads, ...) "
                f"for a token mixer, (self, size, ...) for a language model or (self, model, ...) for a memory added to one."
            )
        if not isinstance(getattr(cls, "law", NONE), Law):
            raise ValueError(f"{cls.__name__} must say its law as Law(forget, compare, write, read) of models.law.")
        entry = Entry(name, cls, _family(cls.__module__), paper, equation, Path(inspect.getfile(cls)))
        if name in _entries and _entries[name].file != entry.file:
            raise ValueError(f"The name '{name}' is already taken by {_entries[name].file}; choose another.")
        _entries[name] = entry
        return cls

    return enter


@lru_cache(maxsize=1024)  # each question of a model's kind asks for it
def _first_setting(cls: type) -> str | None:
    return next(iter(inspect.signature(cls).parameters), None)


def _family(module: str) -> Family:
    """The family that a module's folder says: `baselines.third_generation.ttt` -> third_generation; else `yours`."""
    package = module.rpartition(".")[0]
    return (
        getattr(sys.modules.get(package), "FAMILY", YOURS) if package.startswith(("baselines.", "models.")) else YOURS
    )


def families() -> list[Family]:
    """Every family that a registered model is of, in historical order, then those of no folder."""
    found = {entry.group.name: entry.group for entry in _entries.values()} | {one.name: one for one in (YOURS, OTHERS)}
    return sorted(found.values(), key=lambda family: family.place)


def together(name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """A model and all registered models that it takes its layers from under these settings, each once.

    Those that are not registered are named too. Raises UnknownModel for the model itself.
    """
    found = [name]
    for part in entry(name).parts(settings):
        found += together(part, {}) if part in _entries else [part]
    return tuple(dict.fromkeys(found))


def snapshot() -> dict[str, Entry]:
    """What is registered now, for `restore`."""
    return dict(_entries)


def restore(entries: dict[str, Entry]) -> None:
    """Register exactly these again: a file that failed half-way leaves nothing behind."""
    _entries.clear()
    _entries.update(entries)


def names() -> list[str]:
    """All registered names, by family in historical order, then by name."""
    return sorted(_entries, key=lambda name: (_entries[name].family_order, name))


def entry(name: str) -> Entry:
    """The entry of a name. Raises UnknownModel with the names there are."""
    if name in _entries:
        return _entries[name]
    if not _entries:
        raise UnknownModel(f"Unknown model {shortened(name)}: no model is registered yet; import baselines first.")
    close = difflib.get_close_matches(name, _entries, n=1)
    guess = f" Did you mean '{close[0]}'?" if close else ""
    with suppress(OSError, ValueError):  # a word that no file could be called by
        if (Path(name) / "__init__.py").is_file():
            guess = f" A package of yours is named with a slash: {name}/."
    raise UnknownModel(
        f"Unknown model {shortened(name)}.{guess} {len(names())} are registered (python bench.py list shows them; import "
        "baselines registers the house's, --models FILE.py your own)."
    )
