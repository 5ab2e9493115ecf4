"""The appendix that an artifact committee asks for: claim, command, minutes, and within which interval what is to be expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from results.plans.method.claims import Claim
from results.plans.method.looks import Schedule
from results.report import statistics
from results.report.evaluations import Evaluation, grouped
from results.report.families import Families, ShownFamily
from results.report.findings import claims
from results.report.findings.effort import Effort, effort
from results.report.tables import summary, table
from results.report.tables.columns import Column
from results.rows import labels, metrics, store
from results.rows.row import FLOOR_FAMILY

Row = dict[str, Any]
HOW = (
    '**What to expect.** Each mean stands with its 95 % confidence interval. The interval behind "again" is where the mean of '
    "as many *other* seeds lies in 95 of 100 repeats if seeds scatter like normal numbers; it is never told narrower than the "
    "confidence interval. Equal seeds on another machine differ by rounding, which training can carry far. Seconds hold for the "
    "machine above alone."
)
MINUTES = (
    "Minutes are what the rows say that training, evaluation and timing took, with {workers}; building models, reading data and "
    "drawing come on top."
)
ENERGY = (
    "not metered: multiply the core hours by the watts of a core of yours under load, "
    "and by your site's power usage effectiveness"
)


class Asked(NamedTuple):
    """Which comparison, as its plan says: its name in commands, title, question, claims, looks, workers."""

    name: str  # "quick", or "quick --scale one-gpu"
    title: str
    question: str
    claims: Sequence[Claim]
    workers: int
    schedule: Schedule | None = None
    is_reference: bool = False  # the committed rows, which `verify` and `report` take without a run


def page(asked: Asked, rows: Iterable[Row], families: Iterable[ShownFamily] = ()) -> str:
    """The whole appendix as Markdown, from rows alone. Raises ValueError if there are none."""
    rows = store.attempts(rows)
    if not rows:
        raise ValueError("There are no rows to make an appendix of; run the comparison first.")
    evaluations = grouped(rows, Families(families))
    parts = [f"# Artifact appendix: {asked.title}", asked.question, _check_list(asked, rows), _again(asked, rows)]
    if asked.claims:
        parts += ["## Claims", _claims(asked, rows, evaluations)]
    parts += [
        "## Every model",
        _models(evaluations),
        HOW,
        MINUTES.format(workers=_workers(asked)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _check_list(asked: Asked, rows: Sequence[Row]) -> str:
    """Machine, versions and totals."""
    total = effort(rows)
    named = sorted({(name, version) for row in rows for name, version in row["versions"].items() if version})
    versions = {name: ", ".join(v for n, v in named if n == name) for name, _ in named}
    machine = "; ".join(filter(None, [versions.pop("machine", ""), versions.pop("platform", "")]))
    commits = sorted({row["commit"][:10] + (" with uncommitted changes" if row["dirty"] else "") for row in rows})
    days = sorted({row["when"][:10] for row in rows})
    failed = f", {total.failed} failed" if total.failed else ""
    lines = [
        ("machine", machine),
        ("device", table.distinct(rows, "device")),
        ("libraries", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("commit", ", ".join(commits)),
        ("measured", days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"),
        ("rows", f"{len(rows):,}, of {total.cells + total.untimed:,} cells{failed}"),
        *_repeats([row for row in rows if row["family"] != FLOOR_FAMILY]),
        *_totals(total),
    ]
    return "\n".join(["## Check-list", "", "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in lines)])


def _repeats(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Seeds of what was trained, rounds of what was timed more than once."""
    timed = [row for row in rows if row["protocol"] == "timing"]
    rounds = table.distinct(timed, "seed")
    if len({row["seed"] for row in timed}) < 2:
        return [("seeds", table.distinct(rows, "seed"))]
    trained = table.distinct([row for row in rows if row["protocol"] != "timing"], "seed")
    return [*([("seeds", trained)] if trained else []), ("rounds of timings", rounds)]


def _totals(total: Effort) -> list[tuple[str, str]]:
    """What matters to energy."""
    if not total.cells:
        return [("time", "the rows hold none")]
    untimed = f"; not timed (trivial baselines, failures): {total.untimed:,} of the cells" if total.untimed else ""
    found = [("core hours", f"{total.core_seconds / 3600:.2f}{untimed}")] if total.core_seconds else []
    found += [("GPU hours", f"{total.gpu_seconds / 3600:.2f}")] if total.gpu_seconds else []
    found += [("tokens trained on", f"{total.tokens:,}")] if total.tokens else []
    found += [("peak memory of a cell", metrics.byte_size(total.peak_bytes))] if total.peak_bytes else []
    return [*found, ("energy", ENERGY)]


def _again(asked: Asked, rows: Sequence[Row]) -> str:
    minutes = _minutes(effort(rows).minutes(asked.workers))
    reference = " --reference" if asked.is_reference else ""
    commands = [
        ("installs it", "pip install -e .", "docs/installing.md says what else there is"),
        ("says what a run measures and costs here", f"python bench.py run {asked.name} --dry-run", ""),
        ("scores the stored predictions again, trains nothing", f"python bench.py verify {asked.name}{reference}", ""),
        ("draws tables and figures from the rows", f"python bench.py report {asked.name}{reference}", ""),
        ("measures everything again", f"python bench.py run {asked.name}", f"{minutes} minutes"),
    ]
    lines = [f"| `{command}` | {does}{f' ({more})' if more else ''} |" for does, command, more in commands]
    return "\n".join(["## Running it again", "", "| command | what it does |", "|---|---|", *lines])


def _claims(asked: Asked, rows: Sequence[Row], evaluations: Sequence[Evaluation]) -> str:
    lines = ["| claim | command | minutes | expect | verdict of these rows |", "|---|---|---:|---|---|"]
    for one in claims.judge(asked.claims, evaluations, asked.schedule):
        claim = one.claim
        pair = claim.models
        own = effort(
            rows, lambda row, claim=claim, pair=pair: row["task"] == claim.task and labels.name_of(row) in pair
        )
        command = f"`python bench.py run {asked.name} --models {','.join(pair)} --tasks {claim.task}`"
        found = one.evidence and one.evidence.evaluation
        told = [_expected(found, name, claim.metric, claim.where) for name in pair] if found else []
        expect = "; ".join([*filter(None, told), one.ground])
        cells = [f"{claim.text} ({claim.source})", command, _minutes(own.minutes(asked.workers)), expect, one.verdict]
        lines.append(_line(cells))
    return "\n".join(lines)


def _models(evaluations: Sequence[Evaluation]) -> str:
    """Every model's headline of every evaluation, with what a repeat gives; of speeds the ratios that a contest measured."""
    parts = []
    for evaluation, column in _shown(evaluations):
        lines = [f"**{evaluation.title}: {column.header}**", "", "| model | expect |", "|---|---|"]
        for model in evaluation.learners:
            told = _expected(evaluation, model.label, column.metric, column.where, named=False)
            lines.append(_line([model.label, told or table.cell(evaluation, model, column)]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _shown(evaluations: Sequence[Evaluation]) -> list[tuple[Evaluation, Column]]:
    """The headlines, and of side-by-side benchmarks the time against the reference at each length."""
    contests = [
        (evaluation, one) for evaluation in evaluations if evaluation.is_contest for one in table.layout(evaluation)
    ]
    ratios = [
        (evaluation, replace(column, header=f"{column.header}, {one.title}"))
        for evaluation, one in contests
        for column in one.columns
        if column.metric == "time_ratio"
    ]
    return [*summary.headlines(evaluations), *ratios]


def _expected(evaluation: Evaluation, label: str, metric: str, where: dict[str, Any], named: bool = True) -> str:
    """A model's mean with its interval and that of a repeat, "" where it has none."""
    point = evaluation.point(label, metric, where)
    if point is None:
        return ""
    text = f"{label} {metrics.number(metric, point.value)}" if named else metrics.number(metric, point.value)
    if point.low is None:
        model = next(one for one in evaluation.learners if one.label == label)
        return text + table.quantiles(evaluation, model, Column("", metric, where))
    text += f" [{_interval(metric, point.low, point.high)}]"
    values = list(evaluation.by_seed(label, metric, where).values())
    if len(values) < 2:
        return text
    low, high = statistics.repeated(values)
    low, high = min(low, point.low), max(high, point.high)
    low, high = (max(0.0, low), min(1.0, high)) if metrics.is_accuracy(metric) else (low, high)
    return f"{text}, again [{_interval(metric, low, high)}]"


def _interval(metric: str, low: float, high: float) -> str:
    return f"{metrics.number(metric, low)}, {metrics.number(metric, high)}"


def _workers(asked: Asked) -> str:
    return "one worker" if asked.workers == 1 else f"{asked.workers} workers side by side"


def _minutes(minutes: float | None) -> str:
    return "not timed" if minutes is None else f"{minutes:.1f}" if minutes < 10 else f"{minutes:,.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
