"""What the rows of `check --device` say: a line for each operation and provider, and a sentence for each that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

BAD = ("is off", "failed")
HEAD = ("operation", "provider", "dtype", "calls", "hold", "not covered", "wrong", "not reached", "forward", "backward")

Row = dict[str, Any]


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """The cells of the table: counts by status, and the largest errors of the forms that ran. Absent providers are left out."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["status"] != "absent":
            groups.setdefault((row["operation"], row["provider"], row["dtype"]), []).append(row)
    return [
        [*key, *_counts(found), *(_largest(found, way) for way in ("forward", "backward"))]
        for key, found in sorted(groups.items())
    ]


def _counts(rows: Sequence[Row]) -> list[str]:
    several = [("holds",), ("not covered",), BAD, ("not reached",)]
    return [str(len(rows)), *(str(sum(row["status"] in kinds for row in rows)) for kinds in several)]


def _largest(rows: Iterable[Row], way: str) -> str:
    known = [row[way] for row in rows if row[way] is not None]
    return f"{max(known):.1e}" if known else "-"


def wrong(rows: Iterable[Row]) -> list[str]:
    """A sentence for each form that is off its law or fails."""
    return [
        f"{row['provider']} {'decoding ' if row['decodes'] else ''}{row['operation']} in {row['dtype']} {row['status']}, as "
        f"{', '.join(row['models'][:3])} call{'s' if len(row['models']) == 1 else ''} it ({row['call']}): {row['reason']}"
        for row in rows
        if row["status"] in BAD
    ]


def absent(rows: Iterable[Row]) -> list[str]:
    """Why providers took no part."""
    return list(dict.fromkeys(row["reason"] for row in rows if row["status"] == "absent"))


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table, then what is wrong and who took no part."""
    table = Table(title="Largest relative errors to the law in float64", box=None, padding=(0, 1, 0, 0))
    for name in ("operation", "provider", "dtype", "hold", "other", "forward", "backward"):
        table.add_column(name, no_wrap=name not in ("operation", "other"))
    for operation, provider, dtype, calls, hold, *others, forward, backward in lines(rows):
        counts = zip(others, HEAD[5:8], strict=True)
        other = ", ".join(f"{count} {what}" for count, what in counts if count != "0")
        cells = (operation, provider, dtype, f"{hold} of {calls}", other, forward, backward)
        table.add_row(*map(escape, cells), style="red" if others[1] != "0" else None)
    console.print(table)
    for sentence in wrong(rows):
        console.print(sentence, style="red", markup=False)
    for sentence in absent(rows):
        console.print(sentence, style="yellow", markup=False)


def markdown(rows: Sequence[Row]) -> str:
    """The same as a page."""
    parts = ["# Every form of every operation against its law"]
    if rows:
        one = rows[-1]
        parts.append(
            f"On {one['device']}, {one['when'][:10]}, commit {one['commit'][:10]}, torch {one['versions']['torch']}."
        )
    table = ["| " + " | ".join(HEAD) + " |", "|---" * 3 + "|---:" * (len(HEAD) - 3) + "|"]
    parts.append("\n".join([*table, *("| " + " | ".join(line) + " |" for line in lines(rows))]))
    parts += ["\n".join(f"- {sentence}" for sentence in found) for found in (wrong(rows), absent(rows)) if found]
    return "\n\n".join(parts) + "\n"
