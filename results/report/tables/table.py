"""Tables from rows alone: models by family, trivial baselines below them, a number or a reason in every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.report.evaluations import Evaluation, Model, Point
from results.report.tables import columns, contest_table
from results.report.tables.columns import AVERAGED, Column, Table
from results.rows import metrics
from results.rows.committed import SIGN

SHORT = "not applicable"
INAPPLICABLE = f"left out: {SHORT}"  # how such a row's status and reason begin
FLOORS = "trivial baselines guess, shortcut heuristics read without understanding, references are only shown"


def layout(evaluation: Evaluation) -> list[Table]:
    """The tables of an evaluation, those of a side-by-side benchmark one for each length."""
    return contest_table.tables(evaluation) if evaluation.is_contest else columns.tables(evaluation)


def markdown(
    evaluation: Evaluation, table: Table, reference_model: str = "transformer", beside: Evaluation | None = None
) -> str:
    """One Markdown table; `beside` is the same evaluation in the committed reference, shown in brackets."""
    several = len({providers(evaluation, model) for model in evaluation.learners} - {""}) > 1 or evaluation.is_timing
    head = ["model", "parameters", "state", *(["provider"] if several else [])]
    lines = ["| " + " | ".join([*head, *(column.header for column in table.columns)]) + " |"]
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(head) - 1 + len(table.columns))) + "|")
    blank = [""] * (len(head) - 1 + len(table.columns))
    family = None
    for model in shown(evaluation, table):
        if model.family != family:
            family = model.family
            title = FLOORS if model.is_floor else model.group
            lines.append(_line([f"**{title}**", *blank]))
        facts = [model.title, parameters(evaluation, model, reference_model), metrics.byte_size(model.state_bytes)]
        if model.is_floor or model.label not in evaluation.rows:
            facts = [f"*{model.label}*" if model.is_floor else model.label, "", ""]
        facts += [providers(evaluation, model)] if several else []
        lines.append(_line(facts + [cell(evaluation, model, column, beside) for column in table.columns]))
    return "\n".join(lines)


def shown(evaluation: Evaluation, table: Table) -> list[Model]:
    """The lines of a table: every model of the report, then the trivial baselines that its metrics know or that failed."""

    def known(model: Model) -> bool:
        measured = any(evaluation.point(model.label, column.metric, column.where) for column in table.columns)
        return measured or any(row["status"] == "failed" for row in evaluation.rows[model.label])

    return [model for model in lines(evaluation) if not model.is_floor or known(model)]


def conditions(evaluation: Evaluation, reference_model: str = "transformer", beside: Evaluation | None = None) -> str:
    """One line that says under which conditions an evaluation's numbers came about."""
    rows = _learner_rows(evaluation) or [row for rows in evaluation.rows.values() for row in rows]
    ok = [row for row in rows if row["status"] == "ok"] or rows
    budget, size = evaluation.setup["budget"], evaluation.setup["size"]
    parts = [f"Protocol: {distinct(ok, 'protocol')}"] if distinct(ok, "protocol") else []
    parts += [", ".join(f"{name} {value}" for name, value in size.items())] if size else []
    parts += [work(budget)] if budget else []
    parts += [f"{evaluation.repeat}{'s' if len({r['seed'] for r in rows}) > 1 else ''} {distinct(rows, 'seed')}"]
    parts += [f"learning rate {distinct(rows, 'lr')}"] if budget else []
    parts += [f"{evaluation.setup['dtype']}, {distinct(ok, 'device')}, {_threads(evaluation)}"]
    parts += [
        f"provider {distinct(ok, 'provider') or 'none needed'} (requested: {evaluation.setup['provider_requested']})"
    ]
    parts += [_origin(rows)]
    parts += [f"evaluation version {evaluation.version}"] if evaluation.version > 1 else []
    if evaluation.settings:
        parts.insert(
            0, "Task settings: " + ", ".join(f"{k} {_text(v)}" for k, v in sorted(evaluation.settings.items()))
        )
    gaps = [
        gap for model in evaluation.learners if (gap := parameter_gap(evaluation, model, reference_model)) is not None
    ]
    if gaps:
        parts += [f"parameters against {reference_model}: {min(gaps):+.1f} % to {max(gaps):+.1f} %"]
    if taken := [model.label for model in evaluation.learners if model.committed]:
        parts += [f"{SIGN} not measured here but committed: {', '.join(taken)}"]
    if beside is not None:
        parts += [f"in brackets: the committed reference, {_origin(_learner_rows(beside))}"]
    return "; ".join(parts) + "."


def notes(evaluation: Evaluation, table: Table) -> str:
    """One line on how to read a table's numbers: averages, constants, intervals and marks."""
    if evaluation.is_contest:
        return contest_table.notes(evaluation, table)
    parts = held(evaluation, table)
    used = [column.metric for column in table.columns]
    if (seeds := most_seeds(evaluation)) > 1:
        shares = [metrics.is_accuracy(metric) for metric in used]
        parts += [f"mean (95 % confidence interval) over {evaluation.repeats(seeds)}"] if any(shares) else []
        parts += (
            [f"mean ± half of the 95 % confidence interval over {evaluation.repeats(seeds)}"] if not all(shares) else []
        )
    if any(evaluation.bar(column.metric, column.where) for column in table.columns):
        parts.append(
            f"✓ better than {evaluation.counted()} by its 95 % confidence interval, {columns.UNSURE}; no mark: not better"
        )
    parts += inapplicable(evaluation, table)
    return "; ".join(dict.fromkeys(parts)) + ("." if parts else "")


def inapplicable(evaluation: Evaluation, table: Table) -> list[str]:
    """Which models the question does not suit, and why, as the plan's run found."""
    wheres = [column.where for column in table.columns]
    lost = [label for label, rows in evaluation.rows.items() if any(row["status"] == "left out" for row in rows)]
    found = {label: reason for label in lost for where in wheres if (reason := evaluation.reason(label, where))}
    told = {label: reason for label, reason in found.items() if reason.startswith(INAPPLICABLE)}
    return [f"{label} {SHORT}{reason.removeprefix(INAPPLICABLE)}" for label, reason in told.items()]


def held(evaluation: Evaluation, table: Table) -> list[str]:
    """What all numbers of a table have in common: constant settings, what means are over, units, quantiles."""
    parts = []
    used = list(dict.fromkeys(column.metric for column in table.columns))
    for metric in used:
        wheres, varying = evaluation.wheres(metric), evaluation.varying(metric)
        constant = {k: v for k, v in (wheres[0] if wheres else {}).items() if k not in varying}
        if constant:
            parts.append(f"{metrics.words(metric)}: " + ", ".join(f"{key} {value}" for key, value in constant.items()))
        if averaged := [key for key in AVERAGED if key in varying and not all(key in c.where for c in table.columns)]:
            values = sorted({w[key] for key in averaged for w in wheres if key in w}, key=metrics.sort_key)
            parts.append(f"{metrics.words(metric)}: mean over {averaged[0]} {', '.join(map(str, values))}")
    if any(map(metrics.is_accuracy, used)):
        parts.append("shares in percent")
    if any(metric + ending in evaluation.metrics for metric in used for ending in metrics.QUANTILES):
        parts.append("median, in round brackets the 10 % and 90 % quantiles over repeats")
    return parts


def most_seeds(evaluation: Evaluation) -> int:
    """How many seeds the model with the most of them has."""
    return max((len({r["seed"] for r in evaluation.rows[m.label]}) for m in evaluation.learners), default=1)


def providers(evaluation: Evaluation, model: Model) -> str:
    """The provider or providers that ran for a model."""
    return distinct([row for row in evaluation.rows.get(model.label, []) if row["status"] == "ok"], "provider")


def lines(evaluation: Evaluation) -> list[Model]:
    """Every model of the report, also those that were not evaluated here, then the trivial baselines."""
    here = {model.label: model for model in evaluation.learners}
    return [here.get(model.label, model) for model in evaluation.everyone] + evaluation.floors


def cell(evaluation: Evaluation, model: Model, column: Column, beside: Evaluation | None = None) -> str:
    """What stands in a table for a model: the number with its spread and mark, or why there is none."""
    point = evaluation.point(model.label, column.metric, column.where)
    if point is None:
        reason = evaluation.why(model.label, column.metric, column.where)
        if evaluation.is_contest:
            return reason.split(":")[0]  # whole reasons stand below a side-by-side benchmark's table
        if reason.startswith(INAPPLICABLE):
            return SHORT  # why stands below the table
        return "not defined" if model.is_floor and "failed" not in reason else reason
    text = metrics.number(column.metric, point.value)
    if point.seeds > 1:
        low, high = (metrics.number(column.metric, end) for end in (point.low, point.high))
        half = metrics.number(column.metric, (point.high - point.low) / 2)
        text += f" ({low} to {high})" if metrics.is_accuracy(column.metric) else f" ± {half}"
    text += quantiles(evaluation, model, column) + mark(evaluation, model, column)
    other = beside.point(model.label, column.metric, column.where) if beside and not model.committed else None
    return text + (f" [{metrics.number(column.metric, other.value)}]" if other else "")


def with_spread(evaluation: Evaluation, model: Model, column: Column, point: Point) -> str:
    """A number with half of its 95 % confidence interval, or with its quantiles over repeats."""
    half = "" if point.low is None else f" ± {metrics.number(column.metric, (point.high - point.low) / 2)}"
    return metrics.number(column.metric, point.value) + half + quantiles(evaluation, model, column)


def mark(evaluation: Evaluation, model: Model, column: Column) -> str:
    """What follows a model's number: whether it is better than all trivial baselines, and seeds that failed."""
    if model.is_floor:
        return ""
    text = {"yes": " ✓", "maybe": " (✓)"}.get(evaluation.learned(model.label, column.metric, column.where), "")
    lost, seeds = evaluation.lost(model.label, column.metric, column.where)
    return text + (f", {lost} of {seeds} seeds failed" if lost else "")


def quantiles(evaluation: Evaluation, model: Model, column: Column) -> str:
    """ " (q10 to q90)" over repeats where a number has quantiles, else ""."""
    ends = [evaluation.point(model.label, column.metric + ending, column.where) for ending in metrics.QUANTILES]
    return f" ({' to '.join(metrics.number(column.metric, end.value) for end in ends)})" if all(ends) else ""


def parameter_gap(evaluation: Evaluation, model: Model, reference_model: str) -> float | None:
    """A model's parameters against the reference model's, in percent."""
    reference = evaluation.parameters.get(reference_model)
    return 100 * (model.parameters / reference - 1) if reference and model.parameters else None


def parameters(evaluation: Evaluation, model: Model, reference_model: str) -> str:
    """A model's parameters with their difference from the reference model's, "" if there are none."""
    gap = parameter_gap(evaluation, model, reference_model)
    difference = f" ({gap:+.1f} %)" if gap is not None and model.name != reference_model else ""
    return f"{model.parameters:,}{difference}" if model.parameters else ""


def _learner_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [row for model in evaluation.learners for row in evaluation.rows[model.label]]


def _origin(rows: Sequence[dict[str, Any]]) -> str:
    commits = sorted({(row["commit"][:10] or "unknown") + ("+changes" if row["dirty"] else "") for row in rows})
    days = sorted({row["when"][:10] for row in rows})
    machines = sorted({row["versions"].get("machine", "") for row in rows} - {""})
    torch = sorted({row["versions"].get("torch", "") for row in rows} - {""})
    parts = [f"commit {', '.join(commits)}", days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"]
    return ", ".join([*parts, *machines, *(f"torch {version}" for version in torch)])


def work(budget: Mapping[str, Any]) -> str:
    """What a training took, in words."""
    shared = f", {budget['parallel']} with processes={budget['processes']}" if "parallel" in budget else ""
    micro = f", {budget['micro_batch_tokens']:,} at a time" if "micro_batch_tokens" in budget else ""
    again = ", activations computed again" if budget.get("activation_checkpointing") else ""
    compiled = ", compiled by torch.compile" if budget.get("compile") else ""
    return f"{budget['steps']:,} steps of {budget['batch_tokens']:,} tokens{micro}{again}{shared}{compiled}"


def _threads(evaluation: Evaluation) -> str:
    count = evaluation.setup["threads"]
    return f"{count} thread" if count == 1 else f"{count} threads"


def distinct(rows: Sequence[dict[str, Any]], column: str) -> str:
    """The distinct values of a column, as text."""
    values = sorted({row[column] for row in rows} - {"", None}, key=metrics.sort_key)
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
