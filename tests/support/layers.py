"""A cell for a layer that is timed by hand, outside of any plan."""

from __future__ import annotations

from typing import Any

from results.cell import Cell

HEADS = 4


def cell_of(model: str, width: int, settings: dict[str, Any]) -> Cell:
    """The cell of one layer of a model, as side-by-side benchmarks build theirs."""
    return Cell(
        comparison="",
        kind="contest",
        model=model,
        settings=settings,
        task="",
        task_settings={},
        size={"width": width, "depth": 1, "heads": HEADS},
        budget={},
        seed=0,
        lr=0.0,
        dtype="float32",
        provider="auto",
        device="cpu",
        threads=1,
    )
