"""The operations that a mixer can be made of, for `bench.py list --operations`: how each is called, its law, who computes it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from models.ops.providers import PROVIDERS, Operation, operations

TITLE = """# Operations

What a mixer can be made of. Each is one law with several providers behind one signature; `provider="auto"` takes the fastest
that is there and covers what is asked ([who computes](providers.md)), and every row names what ran. Letters in shapes: b batch,
t time, h heads, k, v and d widths. A state is what the call before returned; None begins a text. How a mixer uses them:
[add a baseline](add_a_baseline.md).

Drawn by `python bench.py list --markdown operations` from the reference recurrences' own words; `python bench.py list
--operations` prints it."""


def called(operation: Operation) -> tuple[str, str]:
    """The line that imports an operation, and how it is called."""
    name = next(name for name, value in vars(sys.modules[operation.package]).items() if value is operation)
    given = inspect.signature(operation.form("recurrence")).parameters.values()
    words, is_named = [], False
    for one in given:
        if one.kind is one.KEYWORD_ONLY and not is_named:
            words.append("*")
            is_named = True
        words.append(one.name if one.default is one.empty else f"{one.name}={one.default!r}")
    words += [*([] if is_named else ["*"]), 'provider="auto"']
    return f"from {operation.package} import {name}", f"{name}({', '.join(words)})"


def _ordered() -> list[Operation]:
    return sorted(operations().values(), key=lambda one: (one.package, one.name))


def table() -> Iterator[RenderableType]:
    """Operation by operation for a terminal."""
    for operation in _ordered():
        imported, call = called(operation)
        yield Text(f"\n{operation.name}", "bold")
        yield Padding(Text(imported), (0, 0, 0, 2), expand=False)
        yield Padding(Text(call), (0, 0, 0, 2), expand=False)
        yield Padding(Text(inspect.getdoc(operation.form("recurrence")), "dim"), (0, 0, 0, 4), expand=False)
        yield Padding(Text(f"providers: {', '.join(_providers(operation))}", "dim"), (0, 0, 0, 4), expand=False)


def show(console: Console) -> None:
    """Print them."""
    console.print(*table(), sep="\n")


def markdown() -> str:
    """The page docs/operations.md."""
    lines = [TITLE]
    for operation in _ordered():
        lines += ["", f"## {operation.name}", "", "```python", *called(operation), "```", ""]
        lines += [inspect.getdoc(operation.form("recurrence")), ""]
        lines += [f"Providers: {', '.join(f'`{name}`' for name in _providers(operation))}.", *_lacks(operation)]
    return "\n".join(lines)


def _providers(operation: Operation) -> list[str]:
    """Its providers in the order of all."""
    return sorted(operation.forms, key=PROVIDERS.index)


def _lacks(operation: Operation) -> list[str]:
    return [f"`{name}` is not one: {why}." for name, why in operation.lacks.items()]
