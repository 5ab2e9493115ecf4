"""Rows seen as exams: a task under one setting and one set-up, with its models, its floors, and aggregated points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from results.cell import CHOSEN, TRIAL
from results.report import statistics
from results.report.families import Families
from results.rows import labels, metrics, readers, store
from results.rows.committed import MARK, SIGN
from results.rows.labels import SETUP
from results.rows.row import FLOOR_FAMILY, canonical, exam_of

Row = dict[str, Any]
ASKED = ("question", "variant")  # keys of `where` that say what is asked
UNTOLD = Families()  # rows alone tell of their families


@dataclass(frozen=True)
class Model:
    """A line of a table: a model under one setting, or a floor."""

    label: str
    name: str
    family: str
    order: int
    hue: float = 0.0
    group: str = ""  # the family's title
    parameters: int | None = None
    state_bytes: int | None = None
    committed: bool = False  # measured elsewhere: taken from the committed rows

    @property
    def title(self) -> str:
        """The label as tables and legends show it."""
        return f"{self.label} {SIGN}" if self.committed else self.label

    @property
    def is_floor(self) -> bool:
        return self.family == FLOOR_FAMILY

    @property
    def reader(self) -> str | None:
        """Of floors, which of `readers.KINDS`: a model must beat all but the references, which are only shown."""
        return readers.kind(self.label) if self.is_floor else None

    @property
    def rank(self) -> tuple[int, str, str]:
        return self.order, self.family, self.label


@dataclass(frozen=True)
class Point:
    """An aggregated number with its 95 % interval, where one is known, and what it rests on."""

    value: float
    low: float | None
    high: float | None
    count: int
    seeds: int


@dataclass
class Exam:
    """One task under equal task settings and one set-up (size, budget, dtype, provider, device, threads)."""

    task: str
    settings: dict[str, Any]
    setup: dict[str, Any]
    models: list[Model]
    rows: dict[str, list[Row]]  # by label
    slug: str = ""
    title: str = ""
    main: bool = True  # of several set-ups the one that figures show
    trials: dict[str, list[Row]] = field(default_factory=dict)  # of learning rates, by label
    everyone: list[Model] = field(default_factory=list)  # all models of the report, also those without a row here
    version: int = 1  # of the task's exam

    @property
    def is_timing(self) -> bool:
        return bool(self.setup["size"]) and not self.setup["budget"]

    @property
    def is_contest(self) -> bool:
        return labels.is_contest(self.settings)

    @property
    def learners(self) -> list[Model]:
        return [model for model in self.models if not model.is_floor]

    @property
    def floors(self) -> list[Model]:
        return [model for model in self.models if model.is_floor]

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics measured here, in a fixed order: as `where` grows, then by name."""
        found: dict[str, int] = {}
        for row in self.measured():
            found[row["metric"]] = max(found.get(row["metric"], 0), len(row["where"]))
        return sorted(found, key=lambda metric: (found[metric], metric))

    @cached_property
    def _index(self) -> dict[tuple[str | None, str | None], list[Row]]:
        """Measured rows by label and metric, None for all of either."""
        found: dict[tuple[str | None, str | None], list[Row]] = {}
        for label, rows in self.rows.items():
            for row in rows:
                if row["status"] == "ok":
                    for key in ((label, row["metric"]), (label, None), (None, row["metric"]), (None, None)):
                        found.setdefault(key, []).append(row)
        return found

    def measured(self, label: str | None = None, metric: str | None = None) -> list[Row]:
        return list(self._index.get((label, metric), ()))

    @cached_property
    def _wheres(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Of each metric the distinct settings that it was measured under, in order, by their canonical text."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self.measured():
            found.setdefault(row["metric"], {})[canonical(row["where"])] = row["where"]
        return {m: dict(sorted(places.items(), key=lambda one: place_of(one[1]))) for m, places in found.items()}

    def wheres(self, metric: str) -> list[dict[str, Any]]:
        """The distinct settings that a metric was measured under, sorted."""
        return list(self._wheres.get(metric, {}).values())

    @cached_property
    def _lost(self) -> list[dict[str, Any]]:
        """The settings of rows without a number that say which part of their cell they are."""
        return [row["where"] for rows in self.rows.values() for row in rows if row["status"] != "ok" and row["where"]]

    def _asked(self, metric: str, where: Mapping[str, Any]) -> set[str]:
        """All parts, as canonical text, that a mean under `where` is told to be over: measured, or failed, by anybody."""
        known = self._wheres.get(metric, {})
        keys = {frozenset(one) for one in known.values()}
        lost = {canonical(one): one for one in self._lost if frozenset(one) in keys}
        return {text for text, one in (known | lost).items() if where.items() <= one.items()}

    def _whole(self, label: str, metric: str, where: Mapping[str, Any]) -> list[Row]:
        """The rows that match `where`, of the seeds that have every part of it: no mean is taken over less."""
        rows = [row for row in self.measured(label, metric) if where.items() <= row["where"].items()]
        if not rows or metric in metrics.ABOUT_TRAINING:
            return rows
        asked = self._asked(metric, where)
        had: dict[int, set[str]] = {}
        for row in rows:
            had.setdefault(row["seed"], set()).add(canonical(row["where"]))
        return [row for row in rows if len(had[row["seed"]]) == len(asked)]

    def varying(self, metric: str) -> list[str]:
        """Keys of `where` that take more than one value for this metric."""
        wheres = self.wheres(metric)
        keys = dict.fromkeys(key for where in wheres for key in where)
        return [key for key in keys if len({canonical(where.get(key)) for where in wheres}) > 1]

    def point(self, label: str, metric: str, where: Mapping[str, Any]) -> Point | None:
        """The mean over seeds of what matches `where`; settings that `where` leaves open are averaged by count.

        A seed that lacks one of those settings, which another model or seed has, takes no part; None where every seed does.
        """
        rows = self._whole(label, metric, where)
        return aggregate(metric, rows) if rows else None

    def by_seed(self, label: str, metric: str, where: Mapping[str, Any]) -> dict[int, float]:
        """Each whole seed's value of what matches `where`, pooled by count."""
        return by_seed(self._whole(label, metric, where))

    def best(self, kinds: Sequence[str], metric: str, where: Mapping[str, Any]) -> tuple[str, float] | None:
        """The best of these `readers.KINDS`, as (name, value).

        Only those count that answered all that anybody was asked: who answers one question of five has no mean over five.
        """
        way = metrics.direction(metric)
        points = [(one.label, self.point(one.label, metric, where)) for one in self.floors if one.reader in kinds]
        known = [(label, point.value) for label, point in points if point is not None]
        return max(known, key=lambda pair: (way * pair[1], pair[0])) if known and way else None

    def best_floor(self, metric: str, where: Mapping[str, Any]) -> tuple[str, float] | None:
        """The best of those that guess, as (name, value)."""
        return self.best([readers.FLOOR], metric, where)

    def best_shortcut(self, metric: str, where: Mapping[str, Any]) -> tuple[str, float] | None:
        """The best of those that read without understanding, as (name, value)."""
        return self.best([readers.SHORTCUT], metric, where)

    def best_reference(self, metric: str, where: Mapping[str, Any]) -> tuple[str, float] | None:
        """The best of those that do what is asked, as (name, value)."""
        return self.best([readers.REFERENCE], metric, where)

    def bar(self, metric: str, where: Mapping[str, Any]) -> tuple[str, float] | None:
        """The best of floors and shortcuts, as (name, value): who is not better has learned nothing that a fool has not."""
        return self.best([readers.FLOOR, readers.SHORTCUT], metric, where)

    def counted(self) -> str:
        """What the mark in tables is held against, in words."""
        return readers.counted({model.reader for model in self.floors})

    def learned(self, label: str, metric: str, where: Mapping[str, Any]) -> str:
        """ "yes" if better than the bar by the interval, "no", or "maybe": better, but without an interval."""
        point, bar, way = self.point(label, metric, where), self.bar(metric, where), metrics.direction(metric)
        if point is None or bar is None:
            return ""
        bound = point.low if way > 0 else point.high
        if bound is None:
            return "maybe" if way * (point.value - bar[1]) > 0 else "no"
        return "yes" if way * (bound - bar[1]) > 0 else "no"

    def reason(self, label: str, where: Mapping[str, Any]) -> str:
        """Why there is no number: the failed rows' reasons, or that the model or this part was not run."""
        failed = [r for r in self.rows.get(label, []) if r["status"] != "ok"]
        fitting = [r for r in failed if not r["where"] or where.items() <= r["where"].items()]
        if fitting:
            return f"{fitting[0]['status']}: " + "; ".join(sorted({row["reason"] for row in fitting}))
        return "not measured" if self.rows.get(label) else "not run"

    def why(self, label: str, metric: str, where: Mapping[str, Any]) -> str:
        """Why there is no number of a metric: as `reason`, or which parts of a mean are missing."""
        rows = [row for row in self.measured(label, metric) if where.items() <= row["where"].items()]
        if not rows:
            return self.reason(label, where)
        missing = self._asked(metric, where) - {canonical(row["where"]) for row in rows}
        failed = [r for r in self.rows[label] if r["status"] != "ok" and canonical(r["where"]) in missing]
        told = "; ".join(sorted({row["reason"] for row in failed})) or "no number"
        return f"failed in part: {len(missing) or 'some'} of {len(self._asked(metric, where))} ({told})"

    def lost(self, label: str, metric: str, where: Mapping[str, Any]) -> tuple[int, int]:
        """(seeds that take no part in a number, all seeds) of a model."""
        lost, seeds = self.lost_seeds(label)
        if metric in metrics.ABOUT_TRAINING:
            return lost, seeds
        return seeds - len({row["seed"] for row in self._whole(label, metric, where)}), seeds

    def lost_seeds(self, label: str) -> tuple[int, int]:
        """(seeds that failed outright, all seeds) of a model."""
        rows = self.rows.get(label, [])
        good, seeds = ({r["seed"] for r in rows if ok in (None, r["status"])} for ok in ("ok", None))
        return len(seeds - good), len(seeds)


def place_of(where: Mapping[str, Any]) -> list:
    """What settings are sorted by: what is asked first, then the other keys by name."""
    keys = sorted(where, key=lambda key: (key not in ASKED, key))
    return [(key, metrics.sort_key(where[key])) for key in keys]


def aggregate(metric: str, rows: Sequence[Row]) -> Point:
    """Pool each seed's rows by count, then average the seeds, with the interval that the numbers allow.

    A share's is the wider of Wilson's and that over seeds, and ends at 0 and 1.
    """
    values = list(by_seed(rows).values())
    count = sum(row["count"] for row in rows)
    value, low, high = fmean(values), None, None
    if len(values) > 1:
        value, half = statistics.student(values)
        low, high = value - half, value + half
    if metrics.is_accuracy(metric):
        ends = statistics.wilson(value, count)
        low = ends[0] if low is None else max(0.0, min(low, ends[0]))
        high = ends[1] if high is None else min(1.0, max(high, ends[1]))
    return Point(value, low, high, count, len(values))


def by_seed(rows: Sequence[Row]) -> dict[int, float]:
    """Each seed's rows pooled by count."""
    groups: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["seed"], canonical(row["where"]))):
        groups.setdefault(row["seed"], []).append(row)
    return {seed: _pooled(group) for seed, group in groups.items()}


def _pooled(rows: list[Row]) -> float:
    weight = sum(row["count"] for row in rows)
    if not weight or len(rows) == 1:
        return fmean(row["value"] for row in rows)
    return sum(row["value"] * row["count"] for row in rows) / weight


def exams(rows: Iterable[Row], families: Families = UNTOLD) -> list[Exam]:
    """Every exam of the rows, in a fixed order that does not depend on theirs; superseded attempts are left out.

    `families` says the order, titles and hues of the models' families.
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
    found = []
    for group_key, group in groups.items():
        task = _task(group[0]) if group else group_key
        found.append(_exam(group, floors.get(task, []), shown, families))
    everyone = {model.label: model for exam in found if not exam.is_contest for model in exam.learners}
    for exam in found:
        exam.trials = _trials(exam, tried)
        exam.everyone = exam.learners if exam.is_contest else sorted(everyone.values(), key=lambda model: model.rank)
    return _named(found)


def _task(row: Row) -> str:
    """What is asked in a row's exam: two versions of an exam are two."""
    return canonical([row["task"], row["settings"]["task"], exam_of(row)])


def everyone(exams: Iterable[Exam]) -> list[Model]:
    """All models of a report, families in order."""
    models = {(model.family, model.label): model for exam in exams for model in exam.everyone}
    return sorted(models.values(), key=lambda model: model.rank)


def _exam(group: list[Row], floors: list[Row], shown: dict[str, str], families: Families) -> Exam:
    by_label: dict[str, list[Row]] = {}
    for row in [*group, *floors]:
        label = shown.get(labels.variant_key(row), readers.label(row["model"]))
        by_label.setdefault(label or "floors", []).append(row)
    models = [_model(label, rows, families) for label, rows in by_label.items()]
    first = (group or floors)[0]
    setup = {name: first[name] for name in SETUP}
    ranked = sorted(models, key=lambda m: m.rank)
    return Exam(first["task"], first["settings"]["task"], setup, ranked, by_label, version=exam_of(first))


def _trials(exam: Exam, tried: Sequence[Row]) -> dict[str, list[Row]]:
    """The trials that the learning rates of an exam's models come from, by label.

    A model under settings that act in its exam alone has no trials of its own, but those of the model without them.
    """
    found: dict[str, list[Row]] = {}
    for model in exam.learners:
        row = next((row for row in exam.rows[model.label] if row["settings"].get("stage") == CHOSEN), None)
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


def _model(label: str, rows: list[Row], families: Families) -> Model:
    newest = max(rows, key=lambda row: (row["status"] == "ok", row["when"]))
    largest = {
        name: max((row[name] for row in rows if row[name] is not None), default=None)
        for name in ("parameters", "state_bytes")
    }
    committed = any(row.get(MARK) for row in rows)
    family = families.of(newest)
    place = {"family": family.name, "order": family.place, "hue": family.hue, "group": family.title}
    return Model(label, newest["model"], **place, **largest, committed=committed)


def _named(found: list[Exam]) -> list[Exam]:
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
