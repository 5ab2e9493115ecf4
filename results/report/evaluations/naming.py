"""How evaluations are told apart: their order, titles and file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.report.evaluations.evaluation import Evaluation
from results.rows import metrics
from results.rows.row import canonical


def named(found: list[Evaluation]) -> list[Evaluation]:
    """Give each evaluation its place, a title and a file name that tells it from its neighbours."""

    def place(evaluation: Evaluation) -> tuple:
        known = evaluation.task in metrics.TASK_ORDER
        order = metrics.TASK_ORDER.index(evaluation.task) if known else len(metrics.TASK_ORDER)
        size = (
            -evaluation.version,
            -len(evaluation.learners),
        )  # of one task's evaluations the newest first, then the one with most models
        return (
            evaluation.is_timing,
            order,
            evaluation.task,
            canonical(evaluation.settings),
            *size,
            canonical(evaluation.setup),
        )

    found = sorted(found, key=place)
    taken: dict[str, int] = {}
    for evaluation in found:
        peers = [other for other in found if other.task == evaluation.task]
        twins = [other for other in peers if other.settings == evaluation.settings]
        evaluation.main = evaluation is twins[0] or evaluation.is_contest
        parts = differences(
            evaluation.settings | {"evaluation": evaluation.version},
            [other.settings | {"evaluation": other.version} for other in peers],
        )
        parts += (
            []
            if evaluation is twins[0] and not evaluation.is_contest
            else differences(evaluation.setup, [other.setup for other in twins])
        )
        evaluation.title = evaluation.task + (f" ({', '.join(parts)})" if parts else "")
        stem = "-".join([evaluation.task, *(part.split("=", 1)[1] for part in parts if len(part) <= 24)])
        stem = "".join(letter if letter.isalnum() else "-" for letter in stem.lower()).strip("-")[:60]
        taken[stem] = taken.get(stem, 0) + 1
        evaluation.slug = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
    return found


def differences(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """ "key=value" for each key that does not have one value in all of `others`."""
    keys = sorted({key for other in others for key in other})
    odd = [key for key in keys if len({canonical(other.get(key)) for other in others}) > 1]
    return [f"{key}={_short(settings.get(key))}" for key in odd]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_short(item)}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
