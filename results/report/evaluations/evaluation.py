"""An evaluation: one task under equal task settings and one set-up, with its models, its trivial baselines and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from results.report import statistics
from results.report.evaluations import pooling
from results.report.evaluations.model import Model
from results.report.evaluations.pooling import Point, Row, RowIndex, items
from results.rows import labels, metrics, readers
from results.rows.row import canonical


@dataclass
class Evaluation:
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
    version: int = 1  # of the task's evaluation
    curves: dict[str, Any] = field(default_factory=dict)  # of training, by label, as `evaluations/curves.py` reads them

    @property
    def is_timing(self) -> bool:
        return bool(self.setup["size"]) and not self.setup["budget"]

    @property
    def repeat(self) -> str:
        """What its rows are repeated over, in a word: a timing has no seed that would change it, but rounds.

        A side-by-side benchmark has its rounds inside; its one seed draws weights and inputs.
        """
        return "round" if self.is_timing and not self.is_contest else "seed"

    def repeats(self, count: int, kind: str = "") -> str:
        """So many of them in words: "5 seeds", or "5 shared seeds" of the kind "shared "."""
        return f"{count} {kind}{self.repeat}{'s' if count != 1 else ''}"

    @property
    def is_contest(self) -> bool:
        return labels.is_contest(self.settings)

    @cached_property
    def learners(self) -> list[Model]:
        return [model for model in self.models if not model.is_floor]

    @cached_property
    def floors(self) -> list[Model]:
        return [model for model in self.models if model.is_floor]

    @cached_property
    def parameters(self) -> dict[str, int | None]:
        """The parameters of every model of the report by its name, as this evaluation's rows have them where it has rows."""
        return {model.name: model.parameters for model in [*self.everyone, *self.learners]}

    @cached_property
    def _index(self) -> RowIndex:
        return RowIndex(self.rows)

    @cached_property
    def _best(self) -> dict[tuple, tuple[str, float] | None]:
        return {}

    def texts(self) -> list[str]:
        """Every text of this evaluation that a figure may show: titles, labels, families, settings and what was asked."""
        names = [text for model in self.models for text in (model.title, model.group)]
        places = [str(where) for wheres in self._index.wheres.values() for where in wheres.values()]
        return [self.title, str(self.settings), str(self.setup), *names, *places]

    @property
    def metrics(self) -> list[str]:
        """Metrics measured here, in a fixed order: as `where` grows, then by name."""
        return self._index.metrics

    @property
    def main_accuracies(self) -> list[str]:
        """The accuracies that figures show, whole answers first; what is generated or stricter stays in the tables."""
        found = [metric for metric in self.metrics if metrics.is_accuracy(metric)]
        strict = ("generated", "string", "exact_accuracy")
        chosen = [metric for metric in found if not any(word in metric for word in strict)] or found
        return sorted(chosen, key=lambda metric: ("token" in metric, metric))

    def measured(self, label: str | None = None, metric: str | None = None) -> list[Row]:
        """The rows with a number, of one model and metric or of all."""
        return self._index.measured(label, metric)

    def wheres(self, metric: str) -> list[dict[str, Any]]:
        """The distinct settings that a metric was measured under, sorted."""
        return list(self._index.wheres.get(metric, {}).values())

    def varying(self, metric: str) -> list[str]:
        """Keys of `where` that take more than one value for this metric."""
        return list(self._index.varying.get(metric, ()))

    def point(self, label: str, metric: str, where: Mapping[str, Any]) -> Point | None:
        """The mean over seeds of what matches `where`; settings that `where` leaves open are averaged by count.

        A seed that lacks one of those settings, which another model or seed has, takes no part; None where every seed does.
        """
        return self._index.point(label, metric, where)

    def by_seed(self, label: str, metric: str, where: Mapping[str, Any]) -> dict[int, float]:
        """Each whole seed's value of what matches `where`, pooled by count."""
        return pooling.by_seed(self._index.whole(label, metric, where))

    def best(self, kinds: Sequence[str], metric: str, where: Mapping[str, Any]) -> tuple[str, float] | None:
        """The best of these `readers.KINDS`, as (name, value).

        Only those count that answered all that anybody was asked: who answers one question of five has no mean over five.
        """
        asked = tuple(kinds), metric, items(where)
        if asked not in self._best:
            way = metrics.direction(metric)
            points = [(one.label, self.point(one.label, metric, where)) for one in self.floors if one.reader in kinds]
            known = [(label, point.value) for label, point in points if point is not None]
            self._best[asked] = max(known, key=lambda pair: (way * pair[1], pair[0])) if known and way else None
        return self._best[asked]

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
        """The best of trivial baselines and shortcuts, as (name, value): who is not better has learned nothing."""
        return self.best([readers.FLOOR, readers.SHORTCUT], metric, where)

    def counted(self) -> str:
        """What the mark in tables is held against, in words."""
        return readers.counted({model.reader for model in self.floors})

    def learned(self, label: str, metric: str, where: Mapping[str, Any]) -> str:
        """ "yes": better than the bar by the interval; "some": not so, but some of its seeds are by their own; "no"; or "maybe":
        better, but without an interval.
        """
        point, bar, way = self.point(label, metric, where), self.bar(metric, where), metrics.direction(metric)
        if point is None or bar is None:
            return ""
        bound = point.low if way > 0 else point.high
        if bound is None:
            return "maybe" if way * (point.value - bar[1]) > 0 else "no"
        if way * (bound - bar[1]) > 0:
            return "yes"
        return "some" if self.seeds_above(label, metric, where, bar[1])[0] else "no"

    def seeds_above(self, label: str, metric: str, where: Mapping[str, Any], bar: float) -> tuple[int, int]:
        """(seeds of a model whose share of right answers is above `bar`, all its seeds): each by its own interval, so wide that
        all of them together err no more often than one at 95 %. None of a single seed, whose interval is the mean's, nor of what
        is no share.
        """
        seeds = pooling.counted_by_seed(self._index.whole(label, metric, where))
        if len(seeds) < 2 or not metrics.is_accuracy(metric) or metrics.direction(metric) < 0:
            return 0, len(seeds)
        level = statistics.LEVEL / len(seeds)
        return sum(statistics.wilson(*one, level)[0] > bar for one in seeds.values()), len(seeds)

    def reason(self, label: str, where: Mapping[str, Any]) -> str:
        """Why there is no number: the failed rows' reasons, or that the model or this part was not run."""
        failed = [r for r in self.rows.get(label, []) if r["status"] != "ok"]
        fitting = [r for r in failed if not r["where"] or where.items() <= r["where"].items()]
        if fitting:
            return f"{fitting[0]['status']}: " + "; ".join(sorted({row["reason"] for row in fitting}))
        return "not measured" if self.rows.get(label) else "not run"

    def why(self, label: str, metric: str, where: Mapping[str, Any]) -> str:
        """Why there is no number of a metric: as `reason`, or which parts of a mean are missing."""
        had = {text for text, _ in self._index.matching(label, metric, where)}
        if not had:
            return self.reason(label, where)
        asked = self._index.asked(metric, where)
        missing = asked - had
        failed = [r for r in self.rows[label] if r["status"] != "ok" and canonical(r["where"]) in missing]
        told = "; ".join(sorted({row["reason"] for row in failed})) or "no number"
        return f"failed in part: {len(missing) or 'some'} of {len(asked)} ({told})"

    def lost(self, label: str, metric: str, where: Mapping[str, Any]) -> tuple[int, int]:
        """(seeds that take no part in a number, all seeds) of a model."""
        lost, seeds = self.lost_seeds(label)
        if metric in metrics.ABOUT_TRAINING:
            return lost, seeds
        return seeds - len({row["seed"] for row in self._index.whole(label, metric, where)}), seeds

    def lost_seeds(self, label: str) -> tuple[int, int]:
        """(seeds that failed outright, all seeds) of a model."""
        return self._lost_seeds.get(label, (0, 0))

    @cached_property
    def _lost_seeds(self) -> dict[str, tuple[int, int]]:
        found = {}
        for label, rows in self.rows.items():
            good, seeds = ({r["seed"] for r in rows if ok in (None, r["status"])} for ok in ("ok", None))
            found[label] = len(seeds - good), len(seeds)
        return found
