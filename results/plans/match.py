"""What a comparison makes equal between its models: parameters, bytes of state, or training FLOPs.

A match by state or FLOPs is part of a cell's `size`, and so of its key and rows: `{"match": "state", "state_bytes": 65536}` or
`{"match": "flops", "flops_length": 512}` beside width, depth and heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results.plans.toml_reader import PlanError, TableReader
from results.rows.metrics import byte_size
from schema import shortened, suggestion
from schema.terms import MATCHES, NEAR, NEAR_SMALL, SMALL, state_tolerance

PARAMETERS, STATE, FLOPS = "parameters", "state", "flops"
NEEDS = {by: key for by, key in MATCHES.items() if key}
MISSING = {STATE: "grows", FLOPS: "no formula"}  # why a model has no figure


def read(table: Mapping[str, Any], reader: TableReader) -> dict[str, Any]:
    """What the plan's `match` adds to the size of each cell: nothing where parameters are matched. Raises PlanError."""
    chosen = reader.take(table, "match", str, PARAMETERS)
    if chosen not in (PARAMETERS, *NEEDS):
        word = f"{shortened(chosen)} is unknown{suggestion(chosen, (PARAMETERS, *NEEDS))}"
        raise PlanError(f"{reader.source}: match {word}; choose {PARAMETERS}, {STATE} or {FLOPS}.")
    for other, key in NEEDS.items():
        if key in table and other != chosen:
            raise PlanError(f"{reader.source}: {key} is for match = '{other}'; write that, or remove {key}.")
    if chosen == PARAMETERS:
        return {}
    value = reader.take(table, NEEDS[chosen], int, where=f"with match = '{chosen}', ")
    if value < 1:
        raise PlanError(f"{reader.source}: {NEEDS[chosen]} must be at least 1, not {value}.")
    return {"match": chosen, NEEDS[chosen]: value}


def by(size: Mapping[str, Any]) -> str:
    """What the models of a cell's or an evaluation's size are matched by."""
    return size.get("match", PARAMETERS)


def words(size: Mapping[str, Any], reference_model: str) -> str:
    """What was made equal, in words: for a card, and for a run's forecast; "" for parameters, which every table shows."""
    if by(size) == STATE:
        aim = size["state_bytes"]
        return (
            f"{aim:,} bytes of state for one row, within {100 * state_tolerance(aim):g} %, and then parameters; a model that "
            "cannot come so near keeps its parameter match"
        )
    if by(size) == FLOPS:
        near, near_small = 100 * NEAR, 100 * NEAR_SMALL
        return (
            f"the {reference_model}'s training FLOPs per token at {size['flops_length']:,} tokens, within {near_small:g} % "
            f"({near:g} % from {SMALL // 1_000_000}M parameters up), while parameters float; a model that cannot come so near "
            "keeps its parameter match"
        )
    return ""


def head(size: Mapping[str, Any], reference_model: str) -> list[str]:
    """The headings of what `cells` gives; none where parameters are matched."""
    columns = {
        STATE: ["bytes of state", f"to {byte_size(size.get('state_bytes'))}"],
        FLOPS: ["training FLOPs per token", f"to {reference_model}"],
    }
    return columns.get(by(size), [])


def cells(size: Mapping[str, Any], figure: float | None, aim: float | None) -> list[str]:
    """A model's figure and its distance to the one aimed at."""
    if by(size) == PARAMETERS:
        return []
    if figure is None or not aim:
        return [MISSING[by(size)], ""]
    text = byte_size(figure) if by(size) == STATE else f"{figure:,.0f}"
    return [text, f"{gap(figure, aim):+.1f} %"]


def gap(figure: float, aim: float) -> float:
    """Percent by which a figure lies above the one aimed at."""
    return 100 * (figure / aim - 1)
