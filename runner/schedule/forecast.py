"""What a run will do: its cells, which of them stand already, and the time that earlier rows let one expect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from results.cell import TRIAL, Cell, counted
from results.plans import match
from results.plans.reader import Plan
from results.rows import store
from results.rows.metrics import byte_size
from runner.preflight import remembered
from runner.schedule.disk import Disk
from schema.terms import MatchReport

TIMES = ("training_seconds", "evaluation_seconds", "timing_seconds")
READ = ("model", "task", "settings", "size", "budget", "parameters", "dtype", "device", "provider_requested", "where")
READ += ("metric", "value", "status")  # columns that a forecast reads of the rows of earlier timings
REFERENCE = "transformer"
SECTIONS = {True: "trials:", False: "then:"}  # of the table: trials of learning rates, and what follows them
OWN_TIME = 3.0  # seconds that a cell takes besides training and examining: building, reading data, counting state


@dataclass(frozen=True)
class Rate:
    """Operations a second of a training, and where that is known from: a timing of another training, or a statement."""

    operations: float
    source: str
    is_measured: bool = False


@dataclass(frozen=True)
class Cost:
    """What a cell costs beside time: operations of its training, bytes that it takes at least; None where nobody can say.

    `is_trained`: its model is kept, so that it will only be examined. `match_report`: where more than parameters is matched.
    `rate` says, when asked, how fast the operations are done where the cell was never timed. `has_vocab`: the vocabulary is
    known, else neither operations nor memory count it. `numbers` are those that are learned, where the model will be kept.
    """

    operations: float | None = None
    memory: int | None = None
    is_trained: bool = False
    match_report: MatchReport | None = None
    rate: Callable[[], Rate | None] = lambda: None
    has_vocab: bool = True
    numbers: int | None = None


def expected_seconds(cell: Cell, past: Sequence[dict[str, Any]], is_trained: bool = False) -> float | None:
    """Seconds that a cell took before, training scaled to its tokens; None without an earlier timing of model and task."""
    if cell.kind == "floors":
        return OWN_TIME
    known = [row for row in past if (row["task"], row["status"]) == (cell.task, "ok") and _same_model(row, cell)]
    if cell.is_timed:
        timed = _nearest(known, cell, "timing_seconds")
        return timed and timed["value"] + OWN_TIME
    trained, examined = (_nearest(known, cell, metric) for metric in ("training_seconds", "evaluation_seconds"))
    if examined is not None and is_trained:
        return examined["value"] + OWN_TIME
    if trained is None or examined is None:
        return None
    tokens = cell.budget["steps"] * cell.budget["batch_tokens"]
    return trained["value"] * tokens / max(1, trained["where"]["tokens"]) + examined["value"] + OWN_TIME


def is_timed_otherwise(cell: Cell, past: Sequence[dict[str, Any]]) -> bool:
    """Whether the cell's model was timed under other settings alone, which may have taken another time altogether."""
    known = [row for row in past if (row["task"], row["status"]) == (cell.task, "ok") and _same_model(row, cell)]
    return bool(cell.model and known) and all(row["settings"]["model"] != cell.settings for row in known)


def timings(results: Path, devices: Collection[str]) -> list[dict[str, Any]]:
    """The rows of every comparison below `results`, committed or not, that say how long a cell took on one of `devices`.

    No others are read: of a cell on one device, times on another say nothing.
    """
    return [row for path in files_of_rows(results) for row in readable(path, devices)]


def files_of_rows(results: Path) -> list[Path]:
    """The files of rows below `results`, each by its name when it is not packed."""
    return sorted({path.with_suffix("") if path.suffix == ".xz" else path for path in results.rglob("rows.jsonl*")})


def readable(path: Path, devices: Collection[str]) -> list[dict[str, Any]]:
    """`timed` of a file; none where it is damaged: a forecast goes on without them."""
    try:
        return timed(path, devices)
    except store.RecordError:
        return []


def timed(path: Path, devices: Collection[str]) -> list[dict[str, Any]]:
    """Of the rows of a file that say how long a cell took on one of `devices`, what a forecast reads. Raises RecordError."""

    def read() -> list[dict[str, Any]]:
        rows = store.read(path, metrics=TIMES, devices=devices)
        return [{column: row[column] for column in READ} for row in rows]

    on = ", ".join(sorted(devices))
    return remembered.of_file(f"timings on {on}", path if path.exists() else path.with_name(path.name + ".xz"), read)


def _same_model(row: dict[str, Any], cell: Cell) -> bool:
    """Whether a row timed the cell's model at its size, or the same side-by-side benchmark at the same length and size."""
    same = (row["size"], row["dtype"], row["device"]) == (cell.size, cell.dtype, cell.device)
    return same and (row["where"] == cell.where if cell.kind == "contest" else row["model"] == cell.model)


def _by_subject(past: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows by task and model, and by task alone, in their order."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in past:
        for subject in dict.fromkeys([(row["task"], row["model"]), (row["task"], "")]):
            found[subject].append(row)
    return found


def _subject(cell: Cell) -> tuple[str, str]:
    """Whose rows may say how long a cell takes; those of a side-by-side benchmark stand under its candidates' names."""
    return cell.task, "" if cell.kind == "contest" else cell.model


def _nearest(known: Sequence[dict[str, Any]], cell: Cell, metric: str) -> dict[str, Any] | None:
    """The row that timed what is likest the cell: the same stage, settings, variant and task's settings; the last of equals.

    A trial is examined on the validation split, which takes another time.
    """

    def likeness(row: dict[str, Any]) -> tuple[bool, ...]:
        settings = row["settings"]
        stage = (settings.get("stage") == TRIAL) == (cell.kind == "trial")
        alike = settings["model"] == cell.settings, settings.get("variant", "") == cell.variant
        return stage, *alike, settings["task"] == cell.task_settings

    found = [row for row in known if row["metric"] == metric]
    return max(reversed(found), key=likeness, default=None)


@dataclass
class _Group:
    """The cells of one model on one task that are planned in one way."""

    model: str
    task: str
    is_trial: bool = False
    cells: int = 0
    missing: int = 0
    examined: int = 0  # of the missing, whose model is kept
    failed: int = 0
    unknown: int = 0  # of the missing, of which no time can be said
    seconds: float = 0.0  # of the missing
    is_estimate: bool = False
    work: float = 0.0
    memory: int = 0
    match_report: MatchReport | None = None

    def row(self, width: int) -> list[str]:
        """What the table shows of it; each number for the cells to be measured, memory for one."""
        state = f"{self.missing} of {self.cells}" + ("*" if self.failed else "")
        time = f"{'~' if self.is_estimate else ''}{duration(self.seconds)}" if self.seconds else ""
        time = f"{time} + ?" if time and self.unknown else "unknown" if self.unknown else time
        work = f"{self.work:.1e}" if self.work else ""
        return [self.model, self.task, state, work, byte_size(self.memory) if self.memory else "", time][-width:]


def forecast(
    plan: Plan,
    cells: Sequence[Cell],
    statuses: Callable[[Cell], str | None],
    past: Sequence[dict[str, Any]],
    cost: Callable[[Cell], Cost] = lambda cell: Cost(),
) -> tuple[Table, str]:
    """The table of a run, one row a model and task, and a line with its time, operations and memory.

    `statuses` says how a cell stands among this machine's rows ("ok", "failed", None); `past` are rows that timed a cell. A
    training that was never timed is scaled by its operations from the rate that `cost` gives it; without one it is unknown.
    """
    groups: dict[tuple[str, ...], _Group] = {}
    timed_before, taken = _by_subject(past), Disk()
    totals, sources, notes = {"timed": 0.0, "measured": 0.0, "stated": 0.0}, {}, set()
    counts = {"timed": 0, "measured": 0, "stated": 0, "unknown": 0, "otherwise": 0}
    for cell in cells:
        stands, costs = statuses(cell), cost(cell)
        model = cell.variant or cell.model or ("all in turn" if cell.kind == "contest" else "floors")
        group = groups.setdefault((model, cell.task, cell.kind), _Group(model, cell.task, cell.kind == "trial"))
        group.cells, group.failed = group.cells + 1, group.failed + (stands == "failed")
        group.memory, group.match_report = max(group.memory, costs.memory or 0), costs.match_report
        notes |= set() if costs.has_vocab else {"vocabulary"}
        if stands is not None:
            continue
        if cell.kind in ("training", TRIAL) and not costs.is_trained:
            taken.add(cell, costs.numbers)
        known = timed_before[_subject(cell)]
        seconds, basis = _time(cell, known, costs)
        group.missing, group.examined = group.missing + 1, group.examined + costs.is_trained
        group.work += 0.0 if costs.is_trained else costs.operations or 0.0
        group.seconds += seconds or 0.0
        group.unknown += seconds is None
        group.is_estimate |= basis in ("measured", "stated")
        counts[basis] += 1
        counts["otherwise"] += basis == "timed" and is_timed_otherwise(cell, known)
        if seconds is not None:
            totals[basis] += seconds / (1 if cell.is_timed or basis == "stated" else plan.workers)
        if basis in ("measured", "stated"):
            sources[costs.rate().source] = None
    line = _line(plan, list(groups.values()), totals, counts, list(sources), notes, taken)
    return _table(plan.title, list(groups.values())), line


def _table(title: str, groups: Sequence[_Group]) -> Table:
    """One row a model and task, each on one line of a terminal of 80 columns; trials stand first, under a word of their own."""
    columns = ("model", "task", "to do", "FLOPs", "memory", "time")
    # The longest names leave one blank, which is part of the text: to pad each cell the table takes half as long again.
    table = Table(*_apart(columns), title=title, box=None, padding=0)
    kinds = sorted({group.is_trial for group in groups}, reverse=True)
    for is_trial in kinds:
        if len(kinds) > 1 or is_trial:
            table.add_row(SECTIONS[is_trial])
        for group in groups:
            if group.is_trial == is_trial:
                table.add_row(*_apart(group.row(6)))
    return table


def _apart(cells: Sequence[str]) -> list[str]:
    return [*(f"{text} " for text in cells[:-1]), cells[-1]]


def matched(plan: Plan, cells: Sequence[Cell], cost: Callable[[Cell], Cost]) -> Table | None:
    """How near each model comes, where the plan matches something beside parameters; None where it does not."""
    if not plan.match:
        return None
    table = Table("model", *_match_head(plan), box=None, pad_edge=False)
    shown = {cell.variant or cell.model: cost(cell).match_report for cell in cells if cell.model}
    for name, match_report in shown.items():
        if match_report is not None:
            table.add_row(name, *_match_cells(plan, match_report))
    return table


def duration(seconds: float) -> str:
    """Seconds in the unit in which a person reads them.

    >>> [duration(n) for n in (4.2, 400, 40_000, 4_000_000)]
    ['4 s', '6.7 min', '11.1 h', '46.3 days']
    """
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{0 if unit == 1 else 1}f} {name}"
    return f"{seconds / 86_400:,.1f} days"


def _time(cell: Cell, past: Sequence[dict[str, Any]], costs: Cost) -> tuple[float | None, str]:
    """Seconds of a cell, and what they rest on: an earlier timing of it, another training's rate, a statement."""
    if (seconds := expected_seconds(cell, past, costs.is_trained)) is not None:
        return seconds, "timed"
    if costs.operations is None or costs.is_trained or (rate := costs.rate()) is None:
        return None, "unknown"
    return costs.operations / rate.operations, "measured" if rate.is_measured else "stated"


def _line(
    plan: Plan,
    groups: Sequence[_Group],
    totals: dict[str, float],
    counts: dict[str, int],
    sources: Sequence[str],
    notes: set[str],
    taken: Disk,
) -> str:
    cells, missing = sum(g.cells for g in groups), sum(g.missing for g in groups)
    failed, examined = sum(g.failed for g in groups), sum(g.examined for g in groups)
    parts = [
        f"{counted(cells)}, {missing} to be measured" + (f" ({examined} of them examined only)" if examined else "")
    ]
    parts += [f"{failed} failed before (*)"] if failed else []
    if counts["timed"]:
        parts.append(f"about {duration(totals['timed'])} on {plan.workers} workers for {counts['timed']} timed before")
    if counts["measured"]:
        parts.append(
            f"an estimate of {duration(totals['measured'])} for the training of {counts['measured']} never timed, from their "
            f"FLOPs and {sources[0]}" + (" and others" if len(sources) > 1 else "")
        )
    if counts["stated"]:
        hours = totals["stated"] / 3600
        parts.append(
            f"an estimate of {hours:,.0f} GPU hours for the training of {counts['stated']}, from their FLOPs at {sources[-1]}, "
            f"as none was timed on {plan.device}; slower forms take several times as long, and evaluations are on top"
        )
    parts += [f"{counts['unknown']} of unknown time"] if counts["unknown"] else []
    parts += [f"{counted(n)} timed under other settings of their model only" for n in [counts["otherwise"]] if n]
    work, memory = sum(g.work for g in groups), max((g.memory for g in groups), default=0)
    parts += [f"{work:.1e} FLOPs of training"] if work else []
    parts += [f"the largest takes {byte_size(memory)} of memory or more"] if memory else []
    parts += taken.told(plan.workers)
    if "vocabulary" in notes:
        parts.append("FLOPs, memory and disk are without the vocabulary, whose tokenizer file is not here")
    words = match.words(plan.match, REFERENCE)
    return "; ".join(parts + ([f"matched by {words}"] if words else []))


def _match_head(plan: Plan) -> list[str]:
    return ["parameters", f"to {REFERENCE}", *match.head(plan.match, REFERENCE)] if plan.match else []


def _match_cells(plan: Plan, match_report: MatchReport | None) -> list[str]:
    """A model's parameters and matched figure, each with its distance to what was aimed at."""
    if not plan.match or match_report is None:
        return []  # of floors
    distance = match.gap(match_report.parameters, match_report.reference_parameters)
    cells = match.cells(plan.match, match_report.figure, match_report.aim)
    return [f"{match_report.parameters:,}", f"{distance:+.1f} %", *cells]
