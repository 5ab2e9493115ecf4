"""The matrix of the overview: models by abilities, every column one evaluation of one comparison, none averaged with another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from results.report.evaluations import Evaluation, Model
from results.report.findings.claims import ClaimVerdict
from results.report.overview.abilities import ABILITIES, Ability
from results.report.pages import provenance
from results.report.pages.provenance import Origin
from results.report.tables import table
from results.report.tables.columns import Column
from results.rows import metrics

LEAST = 0.2  # the shade of the last that learned, where others did not


@dataclass(frozen=True)
class Source:
    """A comparison as the overview reads it: its name, title and page, its evaluations and the verdicts on its claims."""

    name: str
    title: str
    page: str  # from the overview's folder
    evaluations: tuple[Evaluation, ...]
    verdicts: tuple[ClaimVerdict, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One number of the matrix: as tables print it, its interval, its place among the column's models, and its rows.

    `shade` says how strongly its cell is coloured: 1 for the first rank of the column, 0 for the last and for what is no better
    than guessing and shortcuts.
    """

    text: str
    value: float
    low: float | None
    high: float | None
    rank: int
    shade: float
    origin: Origin


@dataclass(frozen=True)
class Evidence:
    """A column of the matrix: an ability, and the evaluation of a comparison that tells of it."""

    ability: Ability
    source: Source
    evaluation: Evaluation
    column: Column

    @cached_property
    def entries(self) -> dict[tuple[str, str], Entry]:
        """The numbers of all models that have one, by family and label, best first; equal values share a rank."""
        way, metric = metrics.direction(self.column.metric), self.column.metric
        points = {
            model.label: (model, point)
            for model in self.evaluation.learners
            if (point := self.evaluation.point(model.label, metric, self.column.where)) is not None
        }
        ordered = sorted(points.values(), key=lambda pair: (-way * pair[1].value, pair[0].rank))
        ranks = {
            label: 1 + sum(way * (other.value - one.value) > 0 for _, other in ordered)
            for label, (_, one) in points.items()
        }
        shades = self._shades(ranks)
        return {
            _key(model): Entry(
                table.cell(self.evaluation, model, self.column), point.value, point.low, point.high, ranks[model.label],
                shades[model.label], provenance.origin(self.evaluation, model, self.column) or Origin(),
            )
            for model, point in ordered
        }  # fmt: skip

    def _shades(self, ranks: dict[str, int]) -> dict[str, float]:
        """How strongly each model's number is coloured: by rank among those that learned, where that is asked."""
        asked = {label: self.evaluation.learned(label, self.column.metric, self.column.where) for label in ranks}
        learned = {label: rank for label, rank in ranks.items() if asked[label] != "no"}
        least = 0.0 if len(learned) == len(ranks) else LEAST
        steps = max(1, max(learned.values(), default=1) - 1)
        return {label: 1 - (1 - least) * (ranks[label] - 1) / steps if label in learned else 0.0 for label in ranks}

    @property
    def place(self) -> str:
        """Where its comparison's page shows the column with its conditions, from the overview's folder."""
        return f"{self.source.page}#{provenance.anchor(self.evaluation)}"

    @property
    def seeds(self) -> int:
        """Seeds of the model that has most."""
        return max(
            (len({row["seed"] for row in self.evaluation.rows[m.label]}) for m in self.evaluation.learners), default=0
        )

    @property
    def conditions(self) -> str:
        """What was asked and of whom, in a line: the comparison, size, budget and number of seeds."""
        setup = self.evaluation.setup
        parts = [self.source.title, self.evaluation.title, self.column.header]
        parts += [", ".join(f"{name} {value}" for name, value in setup["size"].items())] if setup["size"] else []
        parts += [table.work(setup["budget"])] if setup["budget"] else []
        return "; ".join([*parts, self.evaluation.repeats(self.seeds)])


def _key(model: Model) -> tuple[str, str]:
    return model.family, model.label


def evidence(sources: Sequence[Source]) -> list[Evidence]:
    """Every column, by ability; of an ability's the leading one first (`leading`)."""
    found = []
    for ability in ABILITIES:
        of_it = [
            Evidence(ability, source, one, column)
            for source in sources
            for one in source.evaluations
            if one.main and one.learners and (column := ability.column(one)) is not None
        ]
        found += sorted((one for one in of_it if one.entries), key=_weight)
    return found


def _weight(one: Evidence) -> tuple:
    budget = one.evaluation.setup["budget"]
    work = budget.get("steps", 0) * budget.get("batch_tokens", 0)
    return -len(one.entries), -one.seeds, -work, one.source.name, one.evaluation.slug


def leading(found: Iterable[Evidence]) -> list[Evidence]:
    """Of each ability the column that tells most: of most models, then most seeds, then most training."""
    first: dict[str, Evidence] = {}
    for one in found:
        first.setdefault(one.ability.name, one)
    return list(first.values())


def models(found: Iterable[Evidence]) -> list[Model]:
    """All models that any column has a number of, families in order."""
    every = {_key(model): model for one in found for model in one.evaluation.learners if _key(model) in one.entries}
    return sorted(every.values(), key=lambda model: model.rank)


def entry(one: Evidence, model: Model) -> Entry | None:
    """A model's number in a column."""
    return one.entries.get(_key(model))
