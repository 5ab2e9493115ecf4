"""What papers print for our tasks, at their scale, as tables that stand beside ours and never in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from results.plans.paper import Printed
from results.report.section import Section
from results.rows import published

HEADING = "Printed elsewhere (not measured here)"
PAPERS = ("Titans (", "Gated DeltaNet (")
RULER = (
    "Accuracy in percent, as the Titans and Gated DeltaNet papers print it for RULER's single needles. Theirs are "
    "models of the stated size, pre-trained on the stated tokens and asked zero-shot, with lengths in tokens of their "
    "tokenizer; compare orderings, not levels."
)
COMPACT = (
    "Accuracy in percent for RULER's single needles, as the Titans and Gated DeltaNet papers print it: zero-shot, after "
    "training on running text. The compact template above is another and easier question: its numbers do not compare with these."
)
BABILONG = (
    "Accuracy in percent, mean of qa1 to qa5, as Titans prints it (Figure 6, read from the figure's markers, and the "
    "later version's appendix). Theirs are pre-trained models, few-shot or fine-tuned, with lengths in tokens; Gated "
    "DeltaNet prints none. Compare orderings, not levels."
)
WHOLE = (
    "As the paper prints it, at its scale and under its protocol: {protocol}. Nothing here was measured by us, and what the "
    "paper does not state is marked. Compare orderings, not levels."
)
LATER = ("Nested Learning", "Memory Caching")


def section(task: str, measured: Collection[str]) -> str:
    """Markdown with the printed numbers for a task of which we measured some metrics, "" where papers print none."""
    if task == "needle":
        return _sniah(ruler="exact_match" in measured or "string_match" in measured)
    return _babilong() if task == "babilong" else ""


def csv_text(task: str) -> str:
    """The rows behind `section`, "" for a task without any."""
    frame = {"needle": published.sniah, "babilong": published.babilong}.get(task)
    if frame is None:
        return ""
    found = frame()
    chosen = found[found.paper.str.startswith(PAPERS + LATER)]
    return chosen.to_csv(index=False, lineterminator="\n")


def _sniah(ruler: bool) -> str:
    found = published.sniah()
    lines = [f"#### {HEADING}: S-NIAH", "", RULER if ruler else COMPACT]
    for task in sorted(found.task.unique()):
        chosen = found[(found.task == task) & found.paper.str.startswith(PAPERS)]
        lines += ["", f"**{task}** (printed)", "", _pivot(chosen)]
    later = found[found.paper.str.startswith(LATER) & found.model.str.startswith("Titans")]
    if len(later):
        lines += [
            "",
            "**Titans again, in later papers**, which disagree with the first; none states enough to tell why.",
        ]
        for task in sorted(later.task.unique()):
            lines += ["", f"**{task}** (printed, later papers)", "", _pivot(later[later.task == task])]
    return "\n".join(lines)


def _babilong() -> str:
    found = published.babilong()
    chosen = found[found.paper.str.startswith(PAPERS)]
    lines = [f"#### {HEADING}: BABILong", "", BABILONG]
    for table in sorted(chosen.table.unique()):
        lines += ["", f"**{table}** (printed)", "", _pivot(chosen[chosen.table == table])]
    return "\n".join(lines)


def sections(tables: Sequence[Printed]) -> list[Section]:
    """The tables that a plan names, each with its source, protocol and scale."""
    return [Section(f"{HEADING}: {_heading(one)}", _whole(one)) for one in tables]


def csv_of(one: Printed) -> str:
    """The rows behind a section, with every column."""
    found = published.select(one.table, one.where)
    return found[list(published.COLUMNS)].to_csv(index=False, lineterminator="\n")


def file_names(tables: Sequence[Printed]) -> dict[str, Printed]:
    """A file name for each table, the same at every call."""
    names: dict[str, Printed] = {}
    for one in tables:
        stem = f"printed-{one.table}"
        names[stem if stem not in names else f"{stem}-{len(names)}"] = one
    return names


def _heading(one: Printed) -> str:
    found = published.select(one.table, one.where)
    return "; ".join(dict.fromkeys(f"{row.paper}, {row.table}" for row in found.itertuples()))


def _whole(one: Printed) -> str:
    """A table for each metric, and for each task where tasks were asked under several settings."""
    found, lines = published.select(one.table, one.where), [WHOLE.format(protocol=published.protocol(one.table))]
    for (table, metric), group in found.groupby(["table", "metric"], sort=False):
        many = group.task.nunique() > 1 and group.setting.nunique() > 1
        for task, rows in group.groupby("task", sort=False) if many else [("", group)]:
            single = rows.task.nunique() == 1
            title = ", ".join(filter(None, [table, task or (rows.task.iloc[0] if single else "")]))
            asked = rows.setting if single and rows.setting.any() else rows.task
            lines += ["", f"**{title}: {metric}** (printed)", "", *_rows(rows.assign(asked=asked))]
    return "\n".join(lines)


def _rows(chosen: pd.DataFrame) -> list[str]:
    """A Markdown table: models with their scale as rows, what they were asked as columns."""
    keys, columns = ["model", "params", "tokens", "confidence"], list(dict.fromkeys(chosen.asked))
    lines = ["| " + " | ".join(["model", "parameters", "training tokens", "confidence", *columns]) + " |"]
    lines.append("|" + "---|" * 4 + "---:|" * len(columns))
    for (model, params, tokens, confidence), own in chosen.groupby(keys, sort=False):
        values = dict(zip(own.asked, own.value, strict=True))
        facts = [model, params or "not stated", tokens or "not stated", confidence.replace("-", " ")]
        lines.append("| " + " | ".join([*facts, *(values.get(column, "not printed") for column in columns)]) + " |")
    return lines


def _pivot(chosen: pd.DataFrame) -> str:
    lengths = sorted(chosen.length.unique())
    head = ["model", "paper", "parameters", "training tokens", "confidence", *(_size(length) for length in lengths)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 5 + "---:|" * len(lengths)]
    groups = chosen.fillna("").groupby(["paper", "model", "params", "tokens", "confidence"], sort=True)
    for (paper, model, params, tokens, confidence), rows in groups:
        values = dict(zip(rows.length, rows.value, strict=True))
        cells = [f"{values[length]:g}" if length in values else "not printed" for length in lengths]
        facts = [model, paper, params or "not stated", tokens or "not stated", confidence.replace("-", " ")]
        lines.append("| " + " | ".join([*facts, *cells]) + " |")
    return "\n".join(lines)


def _size(length: int) -> str:
    if length % 1024**2 == 0 and length:
        return f"{length // 1024**2}M"
    return f"{length // 1024}K"
