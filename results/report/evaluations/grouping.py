"""Which rows are one evaluation: every evaluation of a report, with its models and the trials of their learning rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from results.cell import CHOSEN, TRIAL
from results.report.evaluations import naming
from results.report.evaluations.evaluation import Evaluation
from results.report.evaluations.model import Model
from results.report.evaluations.pooling import Row
from results.report.families import Families, Look, ShownFamily, looks
from results.rows import labels, readers, store
from results.rows.committed import MARK
from results.rows.labels import SETUP
from results.rows.row import FLOOR_FAMILY, canonical, exam_of

UNTOLD = Families()  # rows alone tell of their families


def grouped(rows: Iterable[Row], families: Families = UNTOLD) -> list[Evaluation]:
    """Every evaluation of the rows, in a fixed order that does not depend on theirs; superseded attempts are left out.

    `families` says the order, titles and looks of the models' families.
    """
    attempts = store.attempts(rows)
    current = labels.newest([row for row in attempts if row["settings"].get("stage") != TRIAL])
    tried = labels.newest([row for row in attempts if row["settings"].get("stage") == TRIAL])
    shown = labels.labels(current)
    groups: dict[str, list[Row]] = {}
    floors: dict[str, list[Row]] = {}
    for row in current:
        task = _task(row)
        if row["family"] == FLOOR_FAMILY:
            floors.setdefault(task, []).append(row)
        else:
            groups.setdefault(canonical([task, [row[name] for name in SETUP]]), []).append(row)
    named = {_task(row) for group in groups.values() for row in group}
    for task in set(floors) - named:
        groups[task] = []
    by_labels = []
    for group_key, group in groups.items():
        task = _task(group[0]) if group else group_key
        by_labels.append(_by_label(group, floors.get(task, []), shown))
    look = _looks(by_labels, families)
    found = [_evaluation(by_label, families, look) for by_label in by_labels]
    everyone = {
        model.label: model for evaluation in found if not evaluation.is_contest for model in evaluation.learners
    }
    for evaluation in found:
        evaluation.trials = _trials(evaluation, tried)
        evaluation.everyone = (
            evaluation.learners if evaluation.is_contest else sorted(everyone.values(), key=lambda model: model.rank)
        )
    return naming.named(found)


def _task(row: Row) -> str:
    """What is asked in a row's evaluation: two versions of an evaluation are two."""
    return canonical([row["task"], row["settings"]["task"], exam_of(row)])


def everyone(evaluations: Iterable[Evaluation]) -> list[Model]:
    """All models of a report, families in order."""
    models = {(model.family, model.label): model for evaluation in evaluations for model in evaluation.everyone}
    return sorted(models.values(), key=lambda model: model.rank)


def _by_label(group: list[Row], floors: list[Row], shown: dict[str, str]) -> dict[str, list[Row]]:
    by_label: dict[str, list[Row]] = {}
    for row in [*group, *floors]:
        label = shown.get(labels.variant_key(row), readers.label(row["model"]))
        by_label.setdefault(label or "floors", []).append(row)
    return by_label


def _evaluation(by_label: dict[str, list[Row]], families: Families, look: dict[tuple[str, str], Look]) -> Evaluation:
    models = []
    for label, rows in by_label.items():
        family = families.of(_newest(rows))
        models.append(_model(label, rows, family, look[family.name, label]))
    first = next(iter(by_label.values()))[0]
    setup = {name: first[name] for name in SETUP}
    ranked = sorted(models, key=lambda m: m.rank)
    return Evaluation(first["task"], first["settings"]["task"], setup, ranked, by_label, version=exam_of(first))


def _trials(evaluation: Evaluation, tried: Sequence[Row]) -> dict[str, list[Row]]:
    """The trials that the learning rates of an evaluation's models come from, by label.

    A model under settings that act in its evaluation alone has no trials of its own, but those of the model without them.
    """
    found: dict[str, list[Row]] = {}
    for model in evaluation.learners:
        row = next((row for row in evaluation.rows[model.label] if row["settings"].get("stage") == CHOSEN), None)
        if row is not None:
            wanted = _subject(row, row["budget"]["steps"])
            same = [one for one in tried if _subject(one, one["where"].get("full_steps")) == wanted]
            own = [one for one in same if _settings(one) == _settings(row)]
            plain = [
                one for one in same if not _settings(one)[0] and _settings(one)[1].items() < _settings(row)[1].items()
            ]
            found[model.label] = own or plain
    return {label: rows for label, rows in found.items() if rows}


def _subject(row: Row, steps: int | None) -> str:
    """What a rate is searched for, but for the model's settings; `steps` are those of the whole training."""
    names = ("model", "task", "size", "dtype", "provider_requested", "device")
    return canonical([row["settings"]["task"], steps, row["budget"]["batch_tokens"], [row[name] for name in names]])


def _settings(row: Row) -> tuple[str, dict[str, Any]]:
    return row["settings"].get("variant", ""), row["settings"]["model"]


def _model(label: str, rows: list[Row], family: ShownFamily, look: Look) -> Model:
    newest = _newest(rows)
    largest = {
        name: max((row[name] for row in rows if row[name] is not None), default=None)
        for name in ("parameters", "state_bytes")
    }
    committed = any(row.get(MARK) for row in rows)
    return Model(label, newest["model"], family.name, family.place, look, family.title, **largest, committed=committed)


def _newest(rows: list[Row]) -> Row:
    """The row that tells of a model: of those with a number, the one measured last."""
    return max(rows, key=lambda row: (row["status"] == "ok", row["when"]))


def _looks(by_labels: Iterable[dict[str, list[Row]]], families: Families) -> dict[tuple[str, str], Look]:
    """The look of every (family, label) of a report."""
    found: dict[ShownFamily, set[str]] = {}
    for by_label in by_labels:
        for label, rows in by_label.items():
            found.setdefault(families.of(_newest(rows)), set()).add(label)
    apart = families.apart(found)
    return {
        (family.name, label): look
        for family, names in found.items()
        for label, look in looks(apart[family], names).items()
    }
