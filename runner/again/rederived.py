"""A cell's numbers once more: scored again from predictions, computed again, or of a benchmark taken from its rounds."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import tasks
from results.rows import labels, verification
from results.rows.row import FLOOR_FAMILY, canonical, cell_of_row, exam_of
from runner.cell_key import contest_code, identify
from tasks.harness import predictions
from tasks.speed import contest
from tasks.speed.throughput import from_samples


def rederive(rows: list[dict[str, Any]], kept: list[dict[str, Any]] | None) -> verification.Again:
    """The numbers of one cell: scored again from its predictions, computed again, or of a benchmark from its rounds.

    Nothing is scored again of a cell that was measured under another version of the task's evaluation.
    """
    row, is_floors = rows[0], rows[0]["family"] == FLOOR_FAMILY
    if labels.is_contest(row["settings"]["task"]):
        same_code = contest_code(map(cell_of_row, rows)) == row["code_hash"]
        return verification.Again(_from_rounds(rows), "itself a sample, or measured once", same_code, "samples")
    try:
        identity = identify(cell_of_row(row))
    except (ValueError, LookupError, OSError, ImportError) as error:
        return verification.Again([], f"the task cannot be set here: {error}", same_code=False)
    about = {"same_code": identity.code_hash == row["code_hash"], "exam": identity.exam}
    if identity.exam != exam_of(row):
        return verification.Again([], "", **about)
    if not is_floors and kept is None:
        return verification.Again([], "no predictions were kept", **about)
    if not is_floors and not row["budget"]:
        found = [(row["model"], *m) for m in from_samples(kept)]
        return verification.Again(found, "measured once, without samples", **about)
    if identity.data_hash != row["data_hash"]:
        return verification.Again([], "the task's data here are not those that were asked", **about)
    task, exams = _asked(row["task"], canonical(row["settings"]["task"]), is_floors)
    if is_floors:
        found = [(name, *m) for name, measurements in task.floors().items() for m in measurements]
    else:
        found = [(row["model"], *m) for m in predictions.mark(task, exams, kept)]
    return verification.Again(found, "measured once", **about)


def _from_rounds(rows: list[dict[str, Any]]) -> list[verification.Number]:
    """Spreads and ratios of a side-by-side benchmark's candidates, from the rows that hold one round each."""
    rounds: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        if row["metric"].endswith(contest.SAMPLE):
            place = {name: value for name, value in row["where"].items() if name != "round"}
            of_metric = rounds.setdefault((row["metric"].removesuffix(contest.SAMPLE), canonical(place)), {})
            of_metric.setdefault(labels.name_of(row), []).append((row["where"]["round"], row["value"]))
    reference = rows[0]["settings"]["task"]["reference"]
    found: list[verification.Number] = []
    for (metric, place), of_entrants in rounds.items():
        samples = {name: [seconds for _, seconds in sorted(numbered)] for name, numbered in of_entrants.items()}
        again = contest.clocked_rounds(metric, samples, reference, json.loads(place))
        found += [(name, *measurement) for name, measurement in again]
    return found


@lru_cache(maxsize=1)  # cells of one task follow one another
def _asked(name: str, settings: str, floors: bool) -> tuple[tasks.Task, list[Any]]:
    task = tasks.create(name, **json.loads(settings))
    return task, [] if floors else list(task.exams("test"))
