"""Tables as a paper takes them: few short columns under grouped heads, cut by group and by family until each fits a page."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from results.report.evaluations import Evaluation, Model
from results.report.tables import columns, summary, table, typesetting
from results.report.tables.columns import Column, Table
from results.rows import metrics

# Points. The text of `article` at 10 pt is 345 wide and 550 high, the least of the usual styles (two columns: 470 and more, over
# both of which `table*` runs); some is left for what kerning adds.
PAGE = 342.0
CAPTION = 290.0  # of a line, behind "Table 100: "
GAP = 5.0  # between columns
LABEL = 90.0  # that a model's label takes before it is broken into lines
INDENT = 8.0  # of the further lines of a label
TALLEST = 40  # lines of models and families, which leaves room for head, caption and note
LONGEST = 70  # letters of a reason why a number is missing; the whole of it stands in the other tables
ARROWS = {"(higher is better)": "↑", "(lower is better)": "↓"}


class Number(NamedTuple):
    """What stands in a cell: a value and its spread, both text; or of a model without a number the reason."""

    value: str
    spread: str = ""
    rank: int = 0  # 1: the best and who ties with it; 2: the second
    reason: str = ""
    is_chance: bool = False  # not shown to be better than who guesses or reads without understanding; takes no rank

    @property
    def style(self) -> str:
        """How the value is set: the best bold, what may be chance italic."""
        return "italic" if self.is_chance else "bold" if self.rank == 1 else ""


class Leaf(NamedTuple):
    """One column of numbers below its head."""

    head: str
    column: Column
    numbers: dict[str, Number]  # by label

    @property
    def value_width(self) -> float:
        """Of the widest value, as if it were bold where it is; a sign for no number is narrower."""
        found = [typesetting.width(one.value, style=one.style) for one in self.numbers.values()]
        return max([*found, typesetting.width("--")])

    @property
    def spread_width(self) -> float:
        """Of the widest spread, 0 where there is none."""
        return typesetting.widest([one.spread for one in self.numbers.values()], 6)

    @property
    def lines(self) -> list[str]:
        """The head in lines, hardly wider than the numbers."""
        return typesetting.lines(self.head, self.value_width + self.spread_width)

    @property
    def width(self) -> float:
        return max(self.value_width + self.spread_width, typesetting.widest(self.lines))


class Group(NamedTuple):
    """Columns below one head; "" for none."""

    head: str
    leaves: tuple[Leaf, ...]

    @property
    def lines(self) -> list[str]:
        """The head in lines, hardly wider than the columns below it."""
        return typesetting.lines(self.head, self._below)

    @property
    def _below(self) -> float:
        return sum(leaf.width for leaf in self.leaves) + GAP * (len(self.leaves) - 1)

    @property
    def width(self) -> float:
        return max(self._below, typesetting.widest(self.lines))


@dataclass(frozen=True)
class PaperTable:
    """One table that fits: its caption, columns, models, and the columns of the report's table that it is a part of."""

    caption: str
    told: str  # the caption in full, where the line does not hold it
    groups: tuple[Group, ...]
    models: tuple[Model, ...]
    source: Table

    @property
    def leaves(self) -> list[Leaf]:
        return [leaf for group in self.groups for leaf in group.leaves]

    @property
    def width(self) -> float:
        """Points from the table's left edge to its right one."""
        return _facts(self.models) + sum(group.width + GAP for group in self.groups)


def tables(evaluation: Evaluation) -> list[PaperTable]:
    """Every table of an evaluation, in parts that fit a page's width and height."""
    return [part for one in table.layout(evaluation) for part in _parts(evaluation, one)]


def parameters(model: Model) -> str:
    """A model's parameters to three figures: 97,600 -> "97.6K"; "" for none and for trivial baselines."""
    if model.is_floor or not model.parameters:
        return ""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if model.parameters >= 0.9995 * size:
            value = model.parameters / size
            return f"{value:.{max(0, 2 - int(math.log10(value) + 2e-4))}f}{unit}"
    return str(model.parameters)


def _parts(evaluation: Evaluation, one: Table) -> Iterator[PaperTable]:
    models = table.shown(evaluation, one)
    packed = _packed(_groups(evaluation, one, models), PAGE - _facts(models))
    chunks = _chunks(models)
    title = re.sub("|".join(map(re.escape, ARROWS)), lambda found: ARROWS[found[0]], one.title)
    for number, (groups, chunk) in enumerate(((groups, chunk) for groups in packed for chunk in chunks), 1):
        count = len(packed) * len(chunks)
        part = f" ({number} of {count})" if count > 1 else ""
        full = f"{evaluation.title}: {title}{part}"
        short = [full, f"{evaluation.task}: {title}{part}", f"{evaluation.task}{part}"]
        caption = next((text for text in short if typesetting.width(text, 10) <= CAPTION), part.strip() or "Results")
        yield PaperTable(caption, "" if caption == full else full, tuple(groups), tuple(chunk), one)


def _facts(models: Sequence[Model]) -> float:
    """The width of what stands left of the numbers: labels and parameters."""
    labels = min(LABEL, typesetting.widest([model.title for model in models]))
    return max(labels, typesetting.width("model")) + GAP + typesetting.widest(["params", *map(parameters, models)])


def _groups(evaluation: Evaluation, one: Table, models: Sequence[Model]) -> list[Group]:
    """Columns of one metric that differ in the last setting alone stand under one head that says all else."""
    found: dict[str, list[Leaf]] = {}
    for place, column in enumerate(one.columns):
        head, below = ("", column.header) if evaluation.is_contest else _heads(one, column)
        ranked = _ranked(evaluation, column, models)
        numbers = {model.label: number(evaluation, model, column, rank) for model, rank in ranked}
        found.setdefault(head or str(place), []).append(Leaf(below, column, numbers))
    return [Group("" if head.isdigit() else head, tuple(leaves)) for head, leaves in found.items()]


def _heads(one: Table, column: Column) -> tuple[str, str]:
    """The head that a column shares with its like, "" for a column that has none, and its own."""
    alike = [other.where for other in one.columns if other.metric == column.metric]
    keys = [key for key in column.where if any(where.get(key) != column.where[key] for where in alike)]
    words = metrics.words(column.metric) if len(alike) < len(one.columns) else ""
    if not keys:
        return "", words or column.header or metrics.words(column.metric)
    own = ["from", "to"] if {"from", "to"} <= set(keys) else [columns.axis_key(keys)]
    above = columns.where_text({key: column.where[key] for key in keys if key not in own})
    axis = "position" if len(own) > 1 else own[0]
    below = columns.where_text({key: column.where[key] for key in own})
    named = ", ".join(filter(None, [words, above]))
    return f"{named}, by {axis}" if named else axis, below.removeprefix(f"{axis} ")


def _ranked(evaluation: Evaluation, column: Column, models: Sequence[Model]) -> list[tuple[Model, int]]:
    ranks = {} if column.metric in metrics.ABOUT_TRAINING else summary.ranked(evaluation, column)
    return [(model, 0 if model.is_floor else ranks.get(model.label, 0)) for model in models]


def number(evaluation: Evaluation, model: Model, column: Column, rank: int = 0) -> Number:
    """What stands in a model's cell of a column; trivial baselines are without spread."""
    point = evaluation.point(model.label, column.metric, column.where)
    if point is None:
        return Number("", reason=textwrap.shorten(table.cell(evaluation, model, column), LONGEST, placeholder=" …"))
    text = metrics.number(column.metric, point.value).replace("-", "−")
    if model.is_floor:
        return Number(text)
    is_chance = evaluation.learned(model.label, column.metric, column.where) == "no"
    found = Number(text, rank=0 if is_chance else rank, is_chance=is_chance)
    if point.low is None:
        return found._replace(spread=table.quantiles(evaluation, model, column).strip().replace(" to ", "–"))
    return found._replace(spread=f"±{metrics.number(column.metric, (point.high - point.low) / 2)}")


def _packed(groups: Sequence[Group], room: float) -> list[list[Group]]:
    """The groups in as few tables as their order allows; one that is too wide by itself is cut into equal parts."""
    packed: list[list[Group]] = []
    for part in (part for group in groups for part in _cut(group, room)):
        if packed and _fits([*packed[-1], part], room):
            packed[-1].append(part)
        else:
            packed.append([part])
    return packed


def _cut(group: Group, room: float) -> list[Group]:
    count = len(group.leaves)
    for parts in range(1, count + 1):
        ends = [round(count * part / parts) for part in range(parts + 1)]
        found = [group._replace(leaves=group.leaves[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
        if all(_fits([one], room) for one in found):
            break
    return found


def _fits(groups: Sequence[Group], room: float) -> bool:
    count = sum(len(group.leaves) for group in groups)
    return count <= columns.WIDEST and sum(group.width + GAP for group in groups) <= room


def _chunks(models: Sequence[Model]) -> list[list[Model]]:
    """The models in as many tables as their height needs: families together, as evenly as that allows."""
    families: dict[str, list[Model]] = {}
    for model in models:
        families.setdefault(model.family, []).append(model)
    parts = [own[i : i + TALLEST - 1] for own in families.values() for i in range(0, len(own), TALLEST - 1)]
    height = sum(map(_height, parts))
    aim = height / math.ceil(height / TALLEST)
    chunks: list[list[Model]] = []
    filled = 0.0
    for own in parts:
        if not chunks or filled + _height(own) > TALLEST or filled >= aim:
            chunks.append([])
            filled = 0.0
        chunks[-1] += own
        filled += _height(own)
    return chunks


def _height(models: Sequence[Model]) -> int:
    """Lines of a family: its head, and its models, whose labels may take several."""
    return 1 + sum(label_lines(model) for model in models)


def label_lines(model: Model) -> int:
    """Lines that a model's label takes, at most."""
    wide = typesetting.width(model.title)
    return 1 if wide <= LABEL else 1 + math.ceil(wide / (LABEL - INDENT - typesetting.UNBROKEN / 4))
