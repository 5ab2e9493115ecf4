"""Takes a TOML table apart key by key and refuses, in one sentence, what it does not know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_REQUIRED = object()
_WORDS = {str: "text", int: "a whole number", float: "a number", dict: "a table", list: "a list"}


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
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise PlanError(f"{self.source}: {where}{key} must be {_WORDS[kind]}, not {value!r}.")
        if kind is str and not value.strip():
            raise PlanError(f"{self.source}: {where}{key} is empty; write something.")
        return value

    def take_list(
        self, table: dict[str, Any], key: str, kind: type, default: Any = _REQUIRED, where: str = ""
    ) -> list[Any]:
        """The list at `key`, each item of type `kind`."""
        values = self.take(table, key, list, default, where)
        return [self.take({key: value}, key, kind, where=f"{where}each of ") for value in values]

    def refuse_unknown(self, table: dict[str, Any], known: Iterable[str], where: str) -> None:
        """Raise PlanError if the table holds any other key."""
        known = list(known)
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise PlanError(f"{self.source}: {where}unknown key {key!r}{hint}; known keys: {', '.join(known)}.")
