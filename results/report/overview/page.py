"""The overview as Markdown for the repository, and as one HTML page that filters, sorts and sets two models side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from results.report.evaluations import Model
from results.report.overview import figures
from results.report.overview.matrix import Evidence, Source, entry, evidence, leading, models
from results.report.pages.template import template
from results.rows import metrics

TITLE = "All comparisons at a glance"
NOTE = (
    "Every number is of one comparison, under its conditions; none is averaged with another's. A comparison has its own size and "
    "budget, so numbers are compared within a column, not across. ranks are counted within a column, 1 is the best."
).replace("ranks are", "Ranks are")


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
        "overview.html": html(sources, found, drawn, fixed),
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
    parts = [f"# {TITLE}", NOTE]
    if "matrix" in drawn:
        parts.append(f"![models by abilities, coloured by rank](figures/{drawn['matrix'][0].name})")
    parts += ["## Models and abilities", _matrix(first, links=True), _conditions(first)]
    parts += ["## What quality costs"] if len(drawn) > 1 else []
    parts += [
        f"![{name.replace('-', ' ')}](figures/{files[0].name})" for name, files in drawn.items() if name != "matrix"
    ]
    parts += ["## Every claim", _tally(sources), _claims(sources)]
    others = [one for one in found if one not in first]
    if others:
        parts += ["## The other evaluations of each ability", _matrix(others, links=True), _conditions(others)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _matrix(found: Sequence[Evidence], links: bool) -> str:
    heads = [f"[{one.ability.name}]({one.source.page})<br>{one.column.header}" for one in found] if links else []
    lines = ["| family | model | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(found)]
    for model in models(found):
        cells = [_told(one, model) for one in found]
        lines.append("| " + " | ".join([model.group, model.title, *cells]) + " |")
    return "\n".join(lines)


def _told(one: Evidence, model: Model) -> str:
    """A number with its rank, the best in bold and the second underlined."""
    known = entry(one, model)
    if known is None:
        return ""
    text = f"**{known.text}**" if known.rank == 1 else f"<u>{known.text}</u>" if known.rank == 2 else known.text
    return f"{text} <sub>{known.rank}</sub>"


def _conditions(found: Sequence[Evidence]) -> str:
    return "\n".join(f"- *{one.ability.name}* ({one.ability.asks}): {one.conditions}" for one in found)


def _tally(sources: Sequence[Source]) -> str:
    """How many claims have which verdict, in a sentence."""
    counts = Counter(one.verdict for source in sources for one in source.verdicts)
    if not counts:
        return "No plan states a claim."
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return f"{sum(counts.values())} claims of papers: {told}."


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
    sources: Sequence[Source], found: Sequence[Evidence], drawn: Mapping[str, list[Path]], fixed: Iterable[str]
) -> str:
    """The overview as one page that asks for nothing but its figures."""
    first, kept = leading(found), set(fixed)
    return template("overview/overview.html").render(
        title=TITLE,
        note=NOTE,
        evidence=[_column(one, one in first) for one in found],
        lines=[_line(model, found, kept) for model in models(found)],
        families=list(dict.fromkeys(model.group for model in models(found))),
        comparisons=list(dict.fromkeys(one.source.name for one in found)),
        figures=[(name.replace("-", " "), f"figures/{_vector(files)}") for name, files in drawn.items()],
        tally=_tally(sources),
        claims=[(source, one) for source in sources for one in source.verdicts],
    )


def _vector(files: Sequence[Path]) -> str:
    return next(path.name for path in files if path.suffix == ".svg")


def _column(one: Evidence, is_first: bool) -> dict[str, Any]:
    return {
        "ability": one.ability.name,
        "asks": one.ability.asks,
        "header": one.column.header,
        "comparison": one.source.name,
        "page": one.source.page,
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
