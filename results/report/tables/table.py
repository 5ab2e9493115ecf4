"""Tables from rows alone: models by family, floors below them, a number or a reason in every cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.report.evaluations import Exam, Model
from results.rows import metrics
from results.rows.committed import SIGN
from results.rows.row import canonical

WIDEST = 8  # columns of numbers that a reader still takes in at once
AVERAGED = ("depth",)  # settings that tables average over; figures show them
END = 1.0  # the depth that stands apart
CSV_COLUMNS = (
    "task", "metric", "where", "model", "family", "family_order", "parameters",
    "parameters_to_reference_percent", "state_bytes", "value", "low", "high", "count", "seeds", "status", "reason",
    "best_floor", "best_floor_value", "best_shortcut", "best_shortcut_value", "learned", "committed_reference", "protocol",
    "provider", "device", "threads", "dtype", "lr",
)  # fmt: skip
FLOORS = "floors guess, cheats take shortcuts, references are only shown"


@dataclass(frozen=True)
class Column:
    """A metric under settings that the header names."""

    header: str
    metric: str
    where: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A title and columns; its lines are the exam's models."""

    title: str
    columns: tuple[Column, ...]


def layout(exam: Exam) -> list[Table]:
    """The tables of an exam: metrics measured under equal settings share one while it stays readable.

    Different metrics are always different columns, so templates that name their metrics apart never mix.
    """
    about = [metric for metric in exam.metrics if metric in metrics.ABOUT_TRAINING]
    groups: dict[str, list[str]] = {}
    for metric in exam.metrics:
        if metric not in about and not metric.endswith(metrics.QUANTILES):
            groups.setdefault(canonical(_column_wheres(exam, metric)), []).append(metric)
    tables = [table for group in groups.values() for table in [*_tables(exam, group), *_at_the_end(exam, group)]]
    if about:
        tables.append(Table("how training went", tuple(Column(metrics.words(m), m, {}) for m in about)))
    return tables


def markdown(exam: Exam, table: Table, reference_model: str = "transformer", beside: Exam | None = None) -> str:
    """One Markdown table; `beside` is the same exam in the committed reference, shown in brackets."""
    several = len({providers(exam, model) for model in exam.learners} - {""}) > 1 or exam.is_timing
    head = ["model", "parameters", "state", *(["provider"] if several else [])]
    lines = ["| " + " | ".join([*head, *(column.header for column in table.columns)]) + " |"]
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(head) - 1 + len(table.columns))) + "|")
    blank = [""] * (len(head) - 1 + len(table.columns))
    family = None
    for model in shown(exam, table):
        if model.family != family:
            family = model.family
            title = FLOORS if model.is_floor else model.group
            lines.append(_line([f"**{title}**", *blank]))
        facts = [model.title, parameters(exam, model, reference_model), metrics.byte_size(model.state_bytes)]
        if model.is_floor or model.label not in exam.rows:
            facts = [f"*{model.label}*" if model.is_floor else model.label, "", ""]
        facts += [providers(exam, model)] if several else []
        lines.append(_line(facts + [cell(exam, model, column, beside) for column in table.columns]))
    return "\n".join(lines)


def shown(exam: Exam, table: Table) -> list[Model]:
    """The lines of a table: every model of the report, then the floors that its metrics know or that failed."""

    def known(model: Model) -> bool:
        measured = any(exam.point(model.label, column.metric, column.where) for column in table.columns)
        return measured or any(row["status"] == "failed" for row in exam.rows[model.label])

    return [model for model in _lines(exam) if not model.is_floor or known(model)]


def conditions(exam: Exam, reference_model: str = "transformer", beside: Exam | None = None) -> str:
    """One line that says under which conditions an exam's numbers came about."""
    rows = _learner_rows(exam) or [row for rows in exam.rows.values() for row in rows]
    ok = [row for row in rows if row["status"] == "ok"] or rows
    budget, size = exam.setup["budget"], exam.setup["size"]
    parts = [f"Protocol: {_all(ok, 'protocol')}"] if _all(ok, "protocol") else []
    parts += [", ".join(f"{name} {value}" for name, value in size.items())] if size else []
    parts += [work(budget)] if budget else []
    parts += [f"seed{'s' if len({r['seed'] for r in rows}) > 1 else ''} {_all(rows, 'seed')}"]
    parts += [f"learning rate {_all(rows, 'lr')}"] if budget else []
    parts += [f"{exam.setup['dtype']}, {_all(ok, 'device')}, {_threads(exam)}"]
    parts += [f"provider {_all(ok, 'provider') or 'none needed'} (requested: {exam.setup['provider_requested']})"]
    parts += [_origin(rows)]
    parts += [f"exam version {exam.version}"] if exam.version > 1 else []
    if exam.settings:
        parts.insert(0, "Task settings: " + ", ".join(f"{k} {_text(v)}" for k, v in sorted(exam.settings.items())))
    gaps = [gap for model in exam.learners if (gap := parameter_gap(exam, model, reference_model)) is not None]
    if gaps:
        parts += [f"parameters against {reference_model}: {min(gaps):+.1f} % to {max(gaps):+.1f} %"]
    if taken := [model.label for model in exam.learners if model.committed]:
        parts += [f"{SIGN} not measured here but committed: {', '.join(taken)}"]
    if beside is not None:
        parts += [f"in brackets: the committed reference, {_origin(_learner_rows(beside))}"]
    return "; ".join(parts) + "."


def notes(exam: Exam, table: Table) -> str:
    """One line on how to read a table's numbers: averages, constants, intervals and marks."""
    parts = []
    for metric in dict.fromkeys(column.metric for column in table.columns):
        wheres, varying = exam.wheres(metric), exam.varying(metric)
        constant = {k: v for k, v in (wheres[0] if wheres else {}).items() if k not in varying}
        if constant:
            parts.append(f"{metrics.words(metric)}: " + ", ".join(f"{key} {value}" for key, value in constant.items()))
        if averaged := [key for key in AVERAGED if key in varying and not all(key in c.where for c in table.columns)]:
            values = sorted({w[key] for key in averaged for w in wheres if key in w}, key=metrics.sort_key)
            parts.append(f"{metrics.words(metric)}: mean over {averaged[0]} {', '.join(map(str, values))}")
    used = [column.metric for column in table.columns]
    seeds = max((len({r["seed"] for r in exam.rows[m.label]}) for m in exam.learners), default=1)
    if any(map(metrics.is_accuracy, used)):
        parts.append("shares in percent")
    if any(metric + ending in exam.metrics for metric in used for ending in metrics.QUANTILES):
        parts.append("median, in round brackets the 10 % and 90 % quantiles over repeats")
    if seeds > 1:
        shares = [metrics.is_accuracy(metric) for metric in used]
        parts += [f"mean (95 % interval) over {seeds} seeds"] if any(shares) else []
        parts += [f"mean ± half of the 95 % interval over {seeds} seeds"] if not all(shares) else []
    if any(exam.bar(column.metric, column.where) for column in table.columns):
        parts.append(
            f"✓ better than {exam.counted()} by its 95 % interval, (✓) better, but one seed gives no interval; "
            "no mark: not better"
        )
    return "; ".join(dict.fromkeys(parts)) + ("." if parts else "")


def csv_text(exam: Exam, reference_model: str = "transformer", beside: Exam | None = None) -> str:
    """All numbers of an exam in long form: those of the tables, and those that the tables average over."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for metric in exam.metrics:
        wheres = [{}] if metric in metrics.ABOUT_TRAINING else exam.wheres(metric)
        if metric not in metrics.ABOUT_TRAINING and any(key in exam.varying(metric) for key in AVERAGED):
            wheres = [*_column_wheres(exam, metric), *wheres]
        for where in wheres:
            for model in _lines(exam):
                writer.writerow(_record(exam, model, metric, where, reference_model, beside))
    return out.getvalue()


def providers(exam: Exam, model: Model) -> str:
    """The provider or providers that ran for a model."""
    return _all([row for row in exam.rows.get(model.label, []) if row["status"] == "ok"], "provider")


def where_text(where: dict[str, Any]) -> str:
    """Settings as a header: {"variant": "s-niah-1", "length": 128} -> "s-niah-1, length 128"."""
    where = dict(where)
    parts = []
    if {"from", "to"} <= set(where):
        parts = [f"{where.pop('from')} to {where.pop('to')}"]
    return ", ".join(parts + [value if isinstance(value, str) else f"{key} {value}" for key, value in where.items()])


def axis_key(keys: Sequence[str]) -> str | None:
    """The setting that columns or a figure's x axis run over."""
    return "length" if "length" in keys else keys[-1] if keys else None


def _column_wheres(exam: Exam, metric: str) -> list[dict[str, Any]]:
    """Distinct settings of a metric without the constant and the averaged ones, in the order of columns."""
    keys = [key for key in exam.varying(metric) if key not in AVERAGED]
    axis = axis_key(keys)
    keys = [key for key in keys if key != axis] + ([axis] if axis else [])
    found = {canonical({k: w.get(k) for k in keys}): {k: w[k] for k in keys if k in w} for w in exam.wheres(metric)}
    return sorted(found.values(), key=lambda where: [metrics.sort_key(where.get(key)) for key in keys])


def _at_the_end(exam: Exam, group: list[str]) -> list[Table]:
    """A table of the last depth alone, where a mean is over several: a window reaches the end of a text of any length."""
    found = []
    for metric in group:
        ends = [where | {"depth": END} for where in _column_wheres(exam, metric)]
        there = {canonical(where): where for where in exam.wheres(metric)}
        ends = [end for end in ends if any(end.items() <= where.items() for where in there.values())]
        if "depth" not in exam.varying(metric):
            continue
        heads = [where_text({key: value for key, value in end.items() if key != "depth"}) for end in ends]
        columns = [Column(head, metric, end) for head, end in zip(heads, ends, strict=True)]
        title = f"{metrics.words(metric)} with the needle at the very end (depth 1.0)"
        found += [Table(title, tuple(columns[i : i + WIDEST])) for i in range(0, len(columns), WIDEST)]
    return found


def _tables(exam: Exam, group: list[str]) -> list[Table]:
    wheres = _column_wheres(exam, group[0])
    if len(group) * len(wheres) <= WIDEST:
        columns = [
            Column(
                f"{metrics.words(metric) if len(group) > 1 or not where else ''} {where_text(where)}".strip(),
                metric,
                where,
            )
            for metric in group
            for where in wheres
        ]
        return [Table(", ".join(_titled(metric) for metric in group), tuple(columns))]
    keys = list(wheres[0])
    axis = axis_key(keys)
    panel_keys = [key for key in keys if key not in (axis, "from", "to")] if len(wheres) > WIDEST else []
    tables = []
    for metric in group:
        panels: dict[str, list[dict[str, Any]]] = {}
        for where in wheres:
            panels.setdefault(where_text({key: where[key] for key in panel_keys}), []).append(where)
        for panel, members in panels.items():
            columns = tuple(
                Column(where_text({k: v for k, v in where.items() if k not in panel_keys}), metric, where)
                for where in members
            )
            tables.append(Table(f"{_titled(metric)}{f', {panel}' if panel else ''}", columns))
    return tables


def _titled(metric: str) -> str:
    better = {1: " (higher is better)", -1: " (lower is better)", 0: ""}[metrics.direction(metric)]
    return metrics.words(metric) + better


def _lines(exam: Exam) -> list[Model]:
    """Every model of the report, also those that did not sit this exam, then the floors."""
    here = {model.label: model for model in exam.learners}
    return [here.get(model.label, model) for model in exam.everyone] + exam.floors


def cell(exam: Exam, model: Model, column: Column, beside: Exam | None = None) -> str:
    """What stands in a table for a model: the number with its spread and mark, or why there is none."""
    point = exam.point(model.label, column.metric, column.where)
    if point is None:
        reason = exam.why(model.label, column.metric, column.where)
        if exam.is_contest:
            return reason.split(":")[0]  # whole reasons stand below a contest's table
        return "not defined" if model.is_floor and "failed" not in reason else reason
    text = metrics.number(column.metric, point.value)
    if point.seeds > 1:
        low, high = (metrics.number(column.metric, end) for end in (point.low, point.high))
        half = metrics.number(column.metric, (point.high - point.low) / 2)
        text += f" ({low} to {high})" if metrics.is_accuracy(column.metric) else f" ± {half}"
    ends = [exam.point(model.label, column.metric + ending, column.where) for ending in metrics.QUANTILES]
    if all(ends):
        text += f" ({' to '.join(metrics.number(column.metric, end.value) for end in ends)})"
    if not model.is_floor:
        text += {"yes": " ✓", "maybe": " (✓)"}.get(exam.learned(model.label, column.metric, column.where), "")
        lost, seeds = exam.lost(model.label, column.metric, column.where)
        text += f", {lost} of {seeds} seeds failed" if lost else ""
    other = beside.point(model.label, column.metric, column.where) if beside and not model.committed else None
    return text + (f" [{metrics.number(column.metric, other.value)}]" if other else "")


def parameter_gap(exam: Exam, model: Model, reference_model: str) -> float | None:
    """A model's parameters against the reference model's, in percent."""
    known = {m.name: m.parameters for m in exam.everyone} | {m.name: m.parameters for m in exam.learners}
    reference = known.get(reference_model)
    return 100 * (model.parameters / reference - 1) if reference and model.parameters else None


def parameters(exam: Exam, model: Model, reference_model: str) -> str:
    """A model's parameters with their difference from the reference model's, "" if there are none."""
    gap = parameter_gap(exam, model, reference_model)
    difference = f" ({gap:+.1f} %)" if gap is not None and model.name != reference_model else ""
    return f"{model.parameters:,}{difference}" if model.parameters else ""


def _record(
    exam: Exam, model: Model, metric: str, where: dict[str, Any], reference_model: str, beside: Exam | None
) -> dict[str, Any]:
    point, floor = exam.point(model.label, metric, where), exam.best_floor(metric, where)
    shortcut = exam.best_shortcut(metric, where)
    other = beside.point(model.label, metric, where) if beside else None
    rows = exam.rows.get(model.label, [])
    gap = parameter_gap(exam, model, reference_model)
    reason = "" if point else exam.why(model.label, metric, where)
    return {
        "task": exam.title, "metric": metric, "where": canonical(where),
        "model": model.label, "family": model.family, "family_order": model.order, "parameters": model.parameters,
        "parameters_to_reference_percent": None if gap is None else f"{gap:.2f}", "state_bytes": model.state_bytes,
        "value": point and point.value, "low": point and point.low, "high": point and point.high,
        "count": point.count if point else 0, "seeds": point.seeds if point else 0,
        "status": ("committed" if model.committed else "ok") if point else reason.split(":")[0], "reason": reason,
        "best_floor": floor and floor[0], "best_floor_value": floor and floor[1],
        "best_shortcut": shortcut and shortcut[0], "best_shortcut_value": shortcut and shortcut[1],
        "learned": "" if model.is_floor else exam.learned(model.label, metric, where),
        "committed_reference": other and other.value, "protocol": _all(rows, "protocol"),
        "provider": providers(exam, model), "device": exam.setup["device"], "threads": exam.setup["threads"],
        "dtype": exam.setup["dtype"], "lr": _all(rows, "lr"),
    }  # fmt: skip


def _learner_rows(exam: Exam) -> list[dict[str, Any]]:
    return [row for model in exam.learners for row in exam.rows[model.label]]


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
    return f"{budget['steps']:,} steps of {budget['batch_tokens']:,} tokens{shared}"


def _threads(exam: Exam) -> str:
    count = exam.setup["threads"]
    return f"{count} thread" if count == 1 else f"{count} threads"


def _all(rows: Sequence[dict[str, Any]], column: str) -> str:
    """The distinct values of a column, as text."""
    values = sorted({row[column] for row in rows} - {"", None}, key=metrics.sort_key)
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
