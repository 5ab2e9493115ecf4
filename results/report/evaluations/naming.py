"""How evaluations are told apart: their order, titles and file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.report.evaluations.evaluation import Exam
from results.rows import metrics
from results.rows.row import canonical


def named(found: list[Exam]) -> list[Exam]:
    """Give each exam its place, a title and a file name that tells it from its neighbours."""

    def place(exam: Exam) -> tuple:
        known = exam.task in metrics.TASK_ORDER
        order = metrics.TASK_ORDER.index(exam.task) if known else len(metrics.TASK_ORDER)
        size = -exam.version, -len(exam.learners)  # of one task's exams the newest first, then the one with most models
        return exam.is_timing, order, exam.task, canonical(exam.settings), *size, canonical(exam.setup)

    found = sorted(found, key=place)
    taken: dict[str, int] = {}
    for exam in found:
        peers = [other for other in found if other.task == exam.task]
        twins = [other for other in peers if other.settings == exam.settings]
        exam.main = exam is twins[0] or exam.is_contest
        parts = differences(
            exam.settings | {"exam": exam.version}, [other.settings | {"exam": other.version} for other in peers]
        )
        parts += (
            []
            if exam is twins[0] and not exam.is_contest
            else differences(exam.setup, [other.setup for other in twins])
        )
        exam.title = exam.task + (f" ({', '.join(parts)})" if parts else "")
        stem = "-".join([exam.task, *(part.split("=", 1)[1] for part in parts if len(part) <= 24)])
        stem = "".join(letter if letter.isalnum() else "-" for letter in stem.lower()).strip("-")[:60]
        taken[stem] = taken.get(stem, 0) + 1
        exam.slug = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
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
