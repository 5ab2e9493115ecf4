"""Tables for a paper: booktabs, the best number bold, the second underlined, intervals beside them."""

from __future__ import annotations

from collections.abc import Sequence

from results.report.evaluations import Evaluation, Model
from results.report.tables import table
from results.report.tables.columns import Column, Table
from results.rows import metrics

HEAD = "% needs \\usepackage{booktabs}\n"
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "✓": r"$\checkmark$", "±": r"$\pm$", "−": "$-$",
}  # fmt: skip


def document_part(evaluation: Evaluation, reference_model: str = "transformer") -> str:
    """Every table of an evaluation as a floating `table`, ready for \\input."""
    below = table.conditions(evaluation, reference_model)
    layout = table.layout(evaluation)
    return HEAD + "\n".join(tabular(evaluation, one, reference_model, below) for one in layout)


def tabular(evaluation: Evaluation, one: Table, reference_model: str = "transformer", below: str = "") -> str:
    """One table. Bold and underline rank models, not trivial baselines, by the numbers as they are printed; equal ones share."""
    ranks = [ranked(evaluation, column) for column in one.columns]
    head = ["model", "parameters", *(column.header for column in one.columns)]
    lines = [_line(map(escape, head)), r"\midrule"]
    family = None
    for model in table.shown(evaluation, one):
        if model.family != family:
            lines += [r"\midrule"] if family is not None and model.is_floor else []
            family = model.family
            title = table.FLOORS if model.is_floor else model.group
            lines.append(rf"\multicolumn{{{len(head)}}}{{l}}{{\emph{{{escape(title)}}}}} \\")
        facts = [model.title, "" if model.is_floor else table.parameters(evaluation, model, reference_model)]
        cells = [_cell(evaluation, model, column, rank) for column, rank in zip(one.columns, ranks, strict=True)]
        lines.append(_line([*map(escape, facts), *cells]))
    caption = escape(f"{evaluation.title}: {one.title}. {_legend(evaluation, one)}{below}")
    columns = "lr" + "r" * len(one.columns)
    top = [r"\begin{table}[t]", r"\centering\small", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}"]
    return "\n".join([*top, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def ranked(evaluation: Evaluation, column: Column) -> dict[str, int]:
    """1 for the best printed number of a column's models, 2 for the second; none where no way is better."""
    way = metrics.direction(column.metric)
    found = [(model.label, evaluation.point(model.label, column.metric, column.where)) for model in evaluation.learners]
    known = [(label, point.value) for label, point in found if point is not None]
    if not way or len(known) < 2 or column.metric in metrics.ABOUT_TRAINING:
        return {}
    ordered = sorted(known, key=lambda pair: -way * pair[1])
    texts = list(dict.fromkeys(metrics.number(column.metric, value) for _, value in ordered))[:2]
    printed = {label: metrics.number(column.metric, value) for label, value in known}
    return {label: texts.index(text) + 1 for label, text in printed.items() if text in texts}


def escape(text: str) -> str:
    """Text with what LaTeX would read as a command made plain."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _cell(evaluation: Evaluation, model: Model, column: Column, ranks: dict[str, int]) -> str:
    point = evaluation.point(model.label, column.metric, column.where)
    if point is None:
        return rf"\emph{{{escape(table.cell(evaluation, model, column))}}}"
    text = escape(metrics.number(column.metric, point.value))
    if (rank := ranks.get(model.label)) and not model.is_floor:
        text = rf"\{('textbf', 'underline')[rank - 1]}{{{text}}}"
    if point.low is not None and not model.is_floor:
        ends = ", ".join(metrics.number(column.metric, end) for end in (point.low, point.high))
        text += rf" {{\scriptsize[{escape(ends)}]}}"
    return text


def _legend(evaluation: Evaluation, one: Table) -> str:
    parts = ["Bold: best, underlined: second, among models"]
    points = [evaluation.point(m.label, c.metric, c.where) for m in evaluation.learners for c in one.columns]
    if any(point and point.low is not None for point in points):
        parts.append("in square brackets the 95 % confidence interval")
    notes = table.notes(evaluation, one)
    parts += [" ".join(notes.split("; ✓")[0].split()).rstrip(".")] if notes else []
    return "; ".join(parts) + ". "


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
