"""Takes a TOML table apart key by key and refuses, in one sentence, what it does not know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schema import conform, shortened, suggestion

LARGEST = 2**64 - 1  # of a whole number: torch, whose seeds and sizes they become, counts in 64 bits
Plain = str | int | float | bool  # what a table of values may hold: no dates, no tables in it
_REQUIRED = object()
_WORDS = {str: "text", int: "a whole number", float: "a number", dict: "a table", list: "a list", bool: "true or false"}


class PlanError(ValueError):
    """A plan, or an override of one, that cannot be run; the message says what to change."""


class TableReader:
    """Reads keys of tables that come from `source`, a file's name for the messages."""

    def __init__(self, source: str) -> None:
        self.source = source

    def numbers(
        self, table: dict[str, Any], key: str, names: tuple[str, ...], where: str = "", *, partial: bool = False
    ) -> dict[str, int]:
        """A table of whole numbers called `names`; with `partial`, any of them."""
        inner = self.take(table, key, dict, {} if partial else _REQUIRED, where)
        self.refuse_unknown(inner, names, f"{where}[{key}] ")
        wanted = [name for name in names if name in inner] if partial else names
        return {name: self.take(inner, name, int, where=f"{where}[{key}] ") for name in wanted}

    def take(self, table: dict[str, Any], key: str, kind: type, default: Any = _REQUIRED, where: str = "") -> Any:
        """The value of `key`, of type `kind` (whole numbers pass as numbers, booleans never do)."""
        if key not in table:
            if default is _REQUIRED:
                raise PlanError(f"{self.source}: {where}{key} is missing; add it.")
            return default
        value = table[key]
        if isinstance(value, int) and abs(value) > LARGEST:
            raise PlanError(
                f"{self.source}: {where}{key} has more than 64 bits ({shortened(value)}); write a smaller one."
            )
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise PlanError(f"{self.source}: {where}{key} must be {_WORDS[kind]}, not {shortened(value)}.")
        if kind is str and not value.strip():
            raise PlanError(f"{self.source}: {where}{key} is empty; write something.")
        return value

    def take_list(
        self, table: dict[str, Any], key: str, kind: type, default: Any = _REQUIRED, where: str = ""
    ) -> list[Any]:
        """The list at `key`, each item of type `kind`."""
        values = self.take(table, key, list, default, where)
        return [self.take({key: value}, key, kind, where=f"{where}each of ") for value in values]

    def take_values(self, table: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
        """The table at `key`, of plain values and lists of them; an empty one where there is none."""
        values = self.take(table, key, dict, {}, where)
        return conform(values, dict[str, Plain | list[Plain]], f"{self.source}: {where}{key}", error=PlanError)

    def refuse_unknown(self, table: dict[str, Any], known: Iterable[str], where: str) -> None:
        """Raise PlanError if the table holds any other key."""
        known = list(known)
        for key in table:
            if key not in known:
                word = f"{shortened(key)}{suggestion(key, known)}"
                raise PlanError(f"{self.source}: {where}unknown key {word}; known keys: {', '.join(known)}.")
