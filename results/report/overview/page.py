"""The overview as Markdown for the repository, and as one HTML page that filters, sorts and sets two models side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from results.report.evaluations import Model
from results.report.findings.claims import NOT_MEASURED, UNDECIDED
from results.report.overview import figures
from results.report.overview.matrix import Evidence, Source, entry, evidence, leading, models
from results.report.pages import provenance
from results.report.pages.template import template
from results.report.tables import columns
from results.rows import metrics
from schema.words import several

TITLE = "All comparisons at a glance"
CAPTION = "Models by abilities, coloured by rank"
NOTE = (
    "Every number is of one comparison, under its conditions; none is averaged with another's. A comparison has its own size and "
    "budget, so numbers are compared within a column, not across. A number is the mean over all that its comparison asks of it "
    "(lengths, variants, pairs), but for length, speeds and state, which are of the longest text."
)
MARKS = (
    "Behind ±: half of the 95 % confidence interval over seeds or rounds; in brackets the interval itself, of timings from the "
    "10 % to the 90 % quantile of the repeats. Small: the rank within the column, by the mean alone; bold: the best, underlined: "
    "the second. ✓ better than the best trivial baseline and the best shortcut heuristic by that interval, "
    f"{columns.UNSURE}. Empty: not measured in that comparison."
)
LINKED = {
    "md": "Every number leads to the tables and conditions it is from.",
    "html": "Every number opens the rows it is from; the stronger its colour, the better its rank in the column; none: no better "
    "than guessing and shortcuts.",
}


def write(sources: Sequence[Source], folder: Path, fixed: Iterable[str] = ()) -> Path:
    """Write `folder`/overview.md, overview.html, overview.csv and figures/; returns the path of overview.md.

    `fixed` are the models whose state has a fixed size. Raises ValueError where no comparison has a number.
    """
    found = evidence(sources)
    if not found:
        raise ValueError(
            "No comparison has rows to look over; run one first, or take --reference for the committed ones."
        )
    drawn = figures.draw(found, folder / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "overview.md": markdown(sources, found, drawn),
        "overview.html": html(sources, found, drawn, fixed, {one.name: _page(one, folder) for one in sources}),
        "overview.csv": csv_text(found),
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    kept = {path for files in drawn.values() for path in files}
    for path in (folder / "figures").glob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    return folder / "overview.md"


def markdown(sources: Sequence[Source], found: Sequence[Evidence], drawn: Mapping[str, list[Path]]) -> str:
    """The overview as Markdown: the matrix, then figures, all columns by ability, and every claim."""
    first = leading(found)
    parts = [f"# {TITLE}", " ".join([_counted(found), _tally(sources)]), NOTE]
    if "matrix" in drawn:
        parts.append(f"![{CAPTION}](figures/{drawn['matrix'][0].name})")
    parts += ["## Models and abilities", f"{LINKED['md']} {MARKS}", _matrix(first), _conditions(first)]
    parts += ["## What quality costs"] if len(drawn) > 1 else []
    parts += [f"![{_caption(name)}](figures/{files[0].name})" for name, files in drawn.items() if name != "matrix"]
    parts += ["## Every claim", _claims(sources) or _tally(sources)]
    others = [one for one in found if one not in first]
    if others:
        parts += ["## The other evaluations of each ability", _matrix(others), _conditions(others)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _matrix(found: Sequence[Evidence]) -> str:
    heads = [f"[{one.ability.name}]({one.place})<br>{one.column.header}" for one in found]
    lines = ["| family | model | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(found)]
    for model in models(found):
        cells = [_told(one, model) for one in found]
        lines.append("| " + " | ".join([model.group, model.title, *cells]) + " |")
    return "\n".join(lines)


def _told(one: Evidence, model: Model) -> str:
    """A number that links to its table, with its rank; the best in bold and the second underlined."""
    known = entry(one, model)
    if known is None:
        return ""
    text = {1: f"**{known.text}**", 2: f"<u>{known.text}</u>"}.get(known.rank, known.text)
    return f"[{text}]({one.place}) <sub>{known.rank}</sub>"


def _conditions(found: Sequence[Evidence]) -> str:
    return "\n".join(f"- *{one.ability.name}* ({one.ability.asks}): {one.conditions}" for one in found)


def _counted(found: Sequence[Evidence]) -> str:
    """How much is looked over, in a sentence."""
    compared = len({one.source.name for one in found})
    return f"{len(models(found))} models in {compared} comparisons, {len(leading(found))} abilities and costs."


def _page(source: Source, folder: Path) -> str:
    """A comparison's page from the overview's folder: the one that a browser shows, where it is drawn."""
    page = Path(source.page).with_suffix(".html")
    return page.as_posix() if (folder / page).is_file() else source.page


def _tally(sources: Sequence[Source]) -> str:
    """How many claims have which verdict, in a sentence."""
    counts = Counter(one.verdict for source in sources for one in source.verdicts)
    if not counts:
        return "No plan states a claim."
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    little = sum(
        bool(one.extreme) and one.verdict not in (UNDECIDED, NOT_MEASURED)
        for source in sources
        for one in source.verdicts
    )
    what = (
        "asks what neither of its models learned or both know, and says"
        if little == 1
        else ("ask what neither of their models learned or both know, and say")
    )
    return f"{several(sum(counts.values()), 'claim')}: {told}." + (
        f" {little} of the decided {what} little." if little else ""
    )


def _claims(sources: Sequence[Source]) -> str:
    lines = ["| comparison | claim | verdict | ground |", "|---|---|---|---|"]
    for source in sources:
        for one in source.verdicts:
            told = f"{one.sentence}: {one.ground}"
            lines.append(f"| [{source.name}]({source.page}) | {one.claim.text} | {one.verdict} | {told} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def csv_text(found: Sequence[Evidence]) -> str:
    """Every number of the overview, a line each."""
    import pandas as pd

    lines = [
        {
            "ability": one.ability.name, "comparison": one.source.name, "evaluation": one.evaluation.title,
            "metric": one.column.metric, "where": json.dumps(one.column.where), "family": model.family, "model": model.label,
            "value": known.value, "low": known.low, "high": known.high, "rank": known.rank,
        }
        for one in found for model in models([one]) if (known := entry(one, model)) is not None
    ]  # fmt: skip
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def html(
    sources: Sequence[Source],
    found: Sequence[Evidence],
    drawn: Mapping[str, list[Path]],
    fixed: Iterable[str],
    pages: Mapping[str, str],
) -> str:
    """The overview as one page that asks for nothing but its figures; `pages` are the comparisons' own, by name."""
    first, kept = leading(found), set(fixed)
    return template("overview/overview.html").render(
        title=TITLE,
        opening=f"{_counted(found)} {_tally(sources)}",
        note=NOTE,
        marks=f"{LINKED['html']} {MARKS}",
        evidence=[_column(one, one in first, pages) for one in found],
        lines=[_line(model, found, kept) for model in models(found)],
        families=list(dict.fromkeys(model.group for model in models(found))),
        comparisons=list(dict.fromkeys(one.source.name for one in found)),
        figures=[(_caption(name), f"figures/{_vector(files)}") for name, files in drawn.items()],
        tally=_tally(sources),
        claims=[(source, pages[source.name], one) for source in sources for one in source.verdicts],
        rows=provenance.facts(_rows(found)),
    )


def _caption(name: str) -> str:
    """What a figure shows, in words."""
    return CAPTION if name == "matrix" else f"What quality costs: {name.removeprefix('cost-of-').replace('-', ' ')}"


def _vector(files: Sequence[Path]) -> str:
    return next(path.name for path in files if path.suffix == ".svg")


def _rows(found: Iterable[Evidence]) -> Iterator[dict[str, Any]]:
    """The rows behind every number of the columns."""
    for one in found:
        cells = {cell for known in one.entries.values() for cell in known.origin.cells}
        yield from (row for rows in one.evaluation.rows.values() for row in rows if row["cell"] in cells)


def _column(one: Evidence, is_first: bool, pages: Mapping[str, str]) -> dict[str, Any]:
    return {
        "ability": one.ability.name,
        "asks": one.ability.asks,
        "header": one.column.header,
        "comparison": one.source.name,
        "page": pages[one.source.name],
        "place": f"{pages[one.source.name]}#{provenance.anchor(one.evaluation)}",
        "conditions": one.conditions,
        "first": is_first,
        "way": metrics.direction(one.column.metric),
    }


def _line(model: Model, found: Sequence[Evidence], fixed: set[str]) -> dict[str, Any]:
    return {
        "model": model,
        "fixed": model.name in fixed,
        "entries": [entry(one, model) for one in found],
    }
