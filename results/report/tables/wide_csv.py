"""The tables of a paper as a CSV file: one line a model, and of every column of LaTeX its number and the number's spread."""

from __future__ import annotations

import csv
import io

from results.report.evaluations import Evaluation
from results.report.tables import columns, paper_table, table
from results.report.tables.paper_table import Leaf, Number
from results.rows import metrics


def csv_text(evaluation: Evaluation) -> str:
    """All tables of `latex.document_part` side by side, "" where there is none; numbers are rounded as they are printed there.

    A model without a number has the reason in its place.
    """
    leaves: dict[str, dict[str, Number]] = {}
    for leaf in (leaf for one in paper_table.tables(evaluation) for leaf in one.leaves):
        leaves.setdefault(_name(leaf), {}).update(leaf.numbers)
    if not leaves:
        return ""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["family", "model", "parameters", *(f"{name}{end}" for name in leaves for end in ("", ", spread"))])
    for model in table.lines(evaluation):
        numbers = [of_model.get(model.label) for of_model in leaves.values()]
        if any(numbers):
            cells = [text for number in numbers for text in _cells(number)]
            writer.writerow([model.group or model.family, model.label, model.parameters or "", *cells])
    return out.getvalue()


def _name(leaf: Leaf) -> str:
    where = columns.where_text(leaf.column.where)
    return metrics.words(leaf.column.metric) + (f", {where}" if where else "")


def _cells(number: Number | None) -> tuple[str, str]:
    if number is None:  # of a trivial baseline that this table does not know
        return "", ""
    return number.reason or number.value.replace(",", "").replace("−", "-"), number.spread.replace(",", "")
