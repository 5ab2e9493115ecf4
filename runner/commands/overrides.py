"""What the command line says of a plan, as text, turned into what `Plan.with_overrides` takes."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from results.plans import sizes
from results.plans.toml_reader import PlanError
from schema import shortened


def settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`["mamba2.states=64"]` -> `{"mamba2": {"states": 64}}`; the name is a model's or a task's."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        name, dot, setting = place.rpartition(".")
        if not (equals and dot and name and setting):
            raise PlanError(f"--set takes NAME.SETTING=VALUE (a model's or a task's name), not {shortened(text)}.")
        found.setdefault(name, {})[setting] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: nested too deeply
        return {"true": True, "false": False}.get(text, text)
    return list(value) if isinstance(value, tuple) else value


def size(text: str) -> dict[str, int]:
    """`"width=64,depth=2"` -> `{"width": 64, "depth": 2}`; `"nano"` -> the size of that name."""
    if "=" not in text:
        return sizes.named(text.strip(), "--size")
    parts = [part.partition("=") for part in text.split(",")]
    if not all(equals for _, equals, _ in parts):
        raise PlanError(f"--size takes a name, or width=64,depth=2,heads=4 (any of them), not {shortened(text)}.")
    return {name.strip(): _whole("--size", value) for name, _, value in parts}


def seeds(text: str) -> list[int]:
    """`"0,1"` -> `[0, 1]`."""
    return [_whole("--seeds", part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """`"retnet, mamba"` -> `["retnet", "mamba"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise PlanError(f"{flag} takes whole numbers, not {shortened(text)}.") from None
