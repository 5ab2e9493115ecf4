"""The side-by-side benchmarks of a plan: `[[contests]]` tables read strictly, and the cells that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.cell import Cell
from results.plans.sizes import SIZE
from results.plans.toml_reader import PlanError, TableReader
from schema import suggestion

LEVELS = ("operation", "layer", "model")  # a layer's recurrence alone, a layer, a language model
# Forward and backward; forward without a gradient; or that for one token after another, of a recurrence alone.
TRAINING, READING, DECODING = DIRECTIONS = ("training", "reading", "decoding")


@dataclass(frozen=True)
class BenchmarkCandidate:
    """Who takes part: a model of the house with settings, or another's code by its name as an external implementation."""

    name: str
    model: str = ""
    opponent: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    repeats: int | None = None  # fewer rounds than the others, for a slow one
    longest: int | None = None  # the longest length it is timed at
    recorded: bool = (
        False  # a decoded token by the calls of the one before (`models.shell.decoding`), not through the layer's code
    )

    def as_data(self, shared: dict[str, Any], rounds: int) -> dict[str, Any]:
        """What a cell of so many rounds carries; `shared` are the plan's settings of the model."""
        settings = {**shared, **dict(self.settings)}
        own = {"name": self.name, "model": self.model, "opponent": self.opponent, "settings": settings}
        own |= {"recorded": True} if self.recorded else {}
        return own | {"repeats": min(rounds, self.repeats or rounds), "longest": self.longest}


@dataclass(frozen=True)
class Contest:
    """One [[contests]] table; a cell for each size, dtype and length."""

    name: str
    level: str
    reference: str
    entrants: tuple[BenchmarkCandidate, ...]
    models: tuple[str, ...]  # take part under their own names; "all" is every model there is
    lengths: tuple[int, ...]
    sizes: tuple[dict[str, int], ...]
    dtypes: tuple[str, ...]
    batch: int = 1
    repeats: tuple[int, ...] = (9,)  # rounds, one number for all lengths or one for each
    limit: float = 120.0  # seconds that one step may take
    direction: str = TRAINING

    def only(self, chosen: Sequence[str]) -> Contest:
        """The benchmark among these and the reference; a name that is no candidate's joins as the model of that name."""
        if "all" in chosen:
            return self
        named = tuple(e for e in self.entrants if e.name in chosen or e.name == self.reference)
        own = [e.name for e in self.entrants]
        models = [name for name in chosen if name not in own and name != self.reference]
        models += [] if self.reference in own else [self.reference]
        return replace(self, entrants=named, models=tuple(models))

    def field(self, names: Sequence[str]) -> list[BenchmarkCandidate]:
        """All candidates; `names` are the models that "all" stands for, without those that stand here by themselves.

        Raises PlanError without the reference.
        """
        own = [entrant.name for entrant in self.entrants]
        others = [name for name in names if name not in own]
        listed = [name for model in self.models for name in (others if model == "all" else [model])]
        found = [*(BenchmarkCandidate(name, model=name) for name in dict.fromkeys(listed)), *self.entrants]
        known = [entrant.name for entrant in found]
        twice = [name for name in dict.fromkeys(known) if known.count(name) > 1]
        if twice:
            raise PlanError(
                f"[[contests]] {self.name!r}: {', '.join(twice)} stands twice; names of candidates must differ."
            )
        if self.reference not in known:
            raise PlanError(f"[[contests]] {self.name!r}: the reference {self.reference!r} is none of the candidates.")
        return found


def read(table: dict[str, Any], size: dict[str, int], dtype: str, reader: TableReader) -> Contest:
    """One [[contests]] table; `size` and `dtype` are the plan's, for one that names none."""
    where = "[[contests]] "
    keys = (
        "name",
        "level",
        "reference",
        "entrants",
        "models",
        "lengths",
        "sizes",
        "dtypes",
        "batch",
        "repeats",
        "limit",
        "direction",
    )
    reader.refuse_unknown(table, keys, where)
    sizes = reader.take_list(table, "sizes", dict, [size] if size else [], where)
    contest = Contest(
        name=reader.take(table, "name", str, where=where),
        level=reader.take(table, "level", str, where=where),
        reference=reader.take(table, "reference", str, where=where),
        entrants=tuple(_entrant(item, reader) for item in reader.take_list(table, "entrants", dict, [], where)),
        models=tuple(reader.take_list(table, "models", str, [], where)),
        lengths=tuple(reader.take_list(table, "lengths", int, where=where)),
        sizes=tuple(reader.numbers({"sizes": one}, "sizes", SIZE, where) for one in sizes),
        dtypes=tuple(reader.take_list(table, "dtypes", str, [dtype], where)),
        batch=reader.take(table, "batch", int, 1, where),
        repeats=tuple(_repeats(table, reader)),
        limit=reader.take(table, "limit", float, 120.0, where),
        direction=reader.take(table, "direction", str, TRAINING, where),
    )
    _check(contest, f"{reader.source}: [[contests]] {contest.name!r}")
    return contest


def _repeats(table: dict[str, Any], reader: TableReader) -> list[int]:
    listed = isinstance(table.get("repeats"), list)
    return reader.take_list(
        table if listed else {"repeats": [table.get("repeats", 9)]}, "repeats", int, where="[[contests]] "
    )


def _entrant(table: dict[str, Any], reader: TableReader) -> BenchmarkCandidate:
    where = "[[contests.entrants]] "
    reader.refuse_unknown(table, ("name", "model", "opponent", "settings", "repeats", "longest", "recorded"), where)
    return BenchmarkCandidate(
        name=reader.take(table, "name", str, where=where),
        model=reader.take(table, "model", str, "", where) if "model" in table else "",
        opponent=reader.take(table, "opponent", str, "", where) if "opponent" in table else "",
        settings=tuple(reader.take(table, "settings", dict, {}, where).items()),
        repeats=reader.take(table, "repeats", int, None, where),
        longest=reader.take(table, "longest", int, None, where),
        recorded=reader.take(table, "recorded", bool, False, where),
    )


def _check(contest: Contest, source: str) -> None:
    odd = [e.name for e in contest.entrants if bool(e.model) == bool(e.opponent)]
    numbers = [*contest.lengths, contest.batch, *contest.repeats, *(v for size in contest.sizes for v in size.values())]
    numbers += [n for e in contest.entrants for n in (e.repeats, e.longest) if n is not None]
    uneven = [size for size in contest.sizes if size["heads"] > 0 and size["width"] % size["heads"]]
    recorded = [e.name for e in contest.entrants if e.recorded and (e.opponent or contest.direction != DECODING)]
    at_model = [e.name for e in contest.entrants if e.opponent] if contest.level == "model" else []
    problems = [
        (
            contest.level not in LEVELS,
            f"level {contest.level!r} is unknown{suggestion(contest.level, LEVELS)}; choose one of {', '.join(LEVELS)}",
        ),
        *((True, f"{key} names {value} twice; name it once") for key, value in _twice(contest)),
        (
            contest.direction not in DIRECTIONS,
            f"direction {contest.direction!r} is unknown{suggestion(contest.direction, DIRECTIONS)}; "
            f"choose one of {', '.join(DIRECTIONS)}",
        ),
        (
            contest.direction == DECODING and contest.level != "operation",
            "direction 'decoding' is of level 'operation', a recurrence alone; whole models decode in [[timings]]",
        ),
        (bool(recorded), f"{', '.join(recorded)} is recorded, which is for models in direction 'decoding'"),
        (bool(odd), f"candidate {', '.join(odd)} needs a model or an external implementation, and not both"),
        (not contest.entrants and not contest.models, "there is no candidate; write models = ['all'] or name some"),
        (not contest.lengths, "lengths is empty; write lengths = [1024]"),
        (not contest.sizes, "there is no size; write [size] or sizes = [{ width = 64, depth = 1, heads = 4 }]"),
        (not contest.dtypes, "dtypes is empty; write dtypes = ['float32']"),
        (any(n < 1 for n in numbers), "lengths, sizes, batch, repeats and longest must be positive"),
        (
            len(contest.repeats) not in (1, len(contest.lengths)),
            "repeats is one number, or a list with one for each length",
        ),
        (bool(uneven), f"a width must be a multiple of its heads, not {uneven}"),
        (not contest.limit > 0, "limit must be a positive number of seconds"),
        (
            bool(at_model),
            f"{', '.join(at_model)} is a layer; external implementations join side-by-side benchmarks "
            "with level = 'layer' or 'operation'",
        ),
    ]
    for wrong, message in problems:
        if wrong:
            raise PlanError(f"{source}: {message}.")


def _twice(contest: Contest) -> list[tuple[str, Any]]:
    """What stands twice in a list of which each item is a cell of its own, or a candidate."""
    lists = {key: getattr(contest, key) for key in ("models", "lengths", "sizes", "dtypes")}
    return [(key, value) for key, values in lists.items() for i, value in enumerate(values) if value in values[:i]]


def cells(contest: Contest, names: Sequence[str], shared: dict[str, dict[str, Any]], template: Cell) -> list[Cell]:
    """A cell for each size, dtype and length; `template` says what the plan says of all, `shared` its settings by model."""
    settings = {name: getattr(contest, name) for name in ("level", "reference", "batch", "limit")}
    settings |= {} if contest.direction == TRAINING else {"direction": contest.direction}
    field, rounds = contest.field(names), contest.repeats * (len(contest.lengths) // len(contest.repeats))
    return [
        replace(
            template,
            task=contest.name,
            task_settings=dict(settings),
            size=dict(size),
            dtype=dtype,
            where={"length": length},
            entrants=[entrant.as_data(shared.get(entrant.model, {}), repeats) for entrant in field],
        )
        for dtype in contest.dtypes
        for size in contest.sizes
        for length, repeats in zip(contest.lengths, rounds, strict=True)
    ]
