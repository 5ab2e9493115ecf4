"""Sizes by name: ours from nano up, and those of the Titans papers as their camera-ready prints them."""

from __future__ import annotations

from typing import Any

from results.plans.toml_reader import PlanError, TableReader
from results.rows import published
from schema import shortened, suggestion

SIZE = ("width", "depth", "heads")
# About 0.1M, 0.8M, 3M, 11M and 25M parameters beside the embeddings.
OWN = {
    "nano": {"width": 64, "depth": 2, "heads": 4},
    "micro": {"width": 128, "depth": 4, "heads": 4},
    "tiny": {"width": 192, "depth": 6, "heads": 6},
    "small": {"width": 384, "depth": 6, "heads": 6},
    "medium": {"width": 512, "depth": 8, "heads": 8},
}
PRINTED_IN = "titans_neurips25_table5_architecture_and_hyperparams"
_COLUMNS = {"model dim": "width", "blocks": "depth", "heads": "heads"}


def printed() -> dict[str, dict[str, int]]:
    """The camera-ready's sizes by name, "170m" to "1.3b", from the published table."""
    found: dict[str, dict[str, int]] = {}
    for row in published.lines(PRINTED_IN, {"metric": list(_COLUMNS)}):
        if row["params"]:
            found.setdefault(row["params"].lower(), {})[_COLUMNS[row["metric"]]] = int(row["number"])
    return {name: {key: size[key] for key in SIZE} for name, size in found.items()}


def named(name: str, source: str) -> dict[str, int]:
    """The size called `name`; raises PlanError, which begins with `source`, for an unknown one."""
    known = OWN | printed()
    if name.lower() not in known:
        word = f"{shortened(name)}{suggestion(name.lower(), known)}"
        raise PlanError(f"{source}: there is no size {word}; known: {', '.join(known)}, or width, depth and heads.")
    return dict(known[name.lower()])


def read(table: dict[str, Any], reader: TableReader) -> dict[str, int]:
    """The key `size` of a plan: a name, or a table of width, depth and heads."""
    if isinstance(table.get("size"), str):
        return named(reader.take(table, "size", str), reader.source)
    return reader.numbers(table, "size", SIZE)
