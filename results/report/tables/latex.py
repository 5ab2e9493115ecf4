"""Tables for a paper in LaTeX: booktabs, grouped heads, the best number bold, the second underlined, conditions in a note."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from results.report.evaluations import Evaluation, Model
from results.report.tables import paper_table, table
from results.report.tables.paper_table import INDENT, LABEL, Group, Leaf, Number, PaperTable
from results.report.tables.typesetting import escape

HEAD = r"""% Needs \usepackage{booktabs}. Each table is at most 345 pt wide: it fits article, and styles of two columns, as
% table* runs over both. Sizes are absolute, so that no class option makes a table wider.
\providecommand{\tmspread}[1]{{\fontsize{6}{7}\selectfont#1}}
"""
NO_NUMBER = "--"


def document_part(evaluation: Evaluation, reference_model: str = "transformer") -> str:
    """Every table of an evaluation as a floating `table*`, ready for \\input."""
    below = table.conditions(evaluation, reference_model)
    parts = enumerate(paper_table.tables(evaluation), 1)
    return HEAD + "\n".join(floating(evaluation, one, below, f"{evaluation.slug}-{place}") for place, one in parts)


def floating(evaluation: Evaluation, one: PaperTable, below: str = "", name: str = "") -> str:
    """One table with its one-line caption and its note. Trivial baselines stand below and take no rank."""
    reasons = _reasons(one)
    top = [
        r"\begin{table*}[tp]",
        r"\centering\setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{4pt}",
        rf"\caption{{{escape(one.caption)}}}",
        *([rf"\label{{tab:{name}}}"] if name else []),
        rf"\fontsize{{8}}{{9.5}}\selectfont\setlength{{\tabcolsep}}{{{paper_table.GAP / 2}pt}}",
        rf"\begin{{tabular}}{{@{{}}lr{''.join(map(_columns, one.leaves))}@{{}}}}",
        r"\toprule",
    ]
    note = escape(_note(evaluation, one, reasons, below), breakable=True)
    end = [
        r"\bottomrule",
        r"\end{tabular}\par\vspace{3pt}",
        rf"\parbox{{\linewidth}}{{\fontsize{{7}}{{8.5}}\selectfont\raggedright {note}}}",
        r"\end{table*}",
        "",
    ]
    return "\n".join([*top, *_head(one), r"\midrule", *_body(one, reasons), *end])


def _columns(leaf: Leaf) -> str:
    """The columns of one kind of number: value and spread are aligned apart, so that points stand below one another."""
    return "r@{}l" if leaf.spread_width else "r"


def _span(leaves: Sequence[Leaf]) -> int:
    return sum(1 + bool(leaf.spread_width) for leaf in leaves)


def _head(one: PaperTable) -> Iterator[str]:
    """The line of group heads with a rule below each, where there are any, and the line of columns."""
    if any(group.head for group in one.groups):
        heads = [_spanned(group.leaves, group.lines, group is one.groups[-1]) for group in one.groups]
        yield " & ".join(["", "", *heads]) + r" \\"
        yield "".join(_rules(one.groups))
    heads = [_spanned([leaf], leaf.lines, leaf is one.groups[-1].leaves[-1]) for leaf in one.leaves]
    yield " & ".join(["model", "params", *heads]) + r" \\"


def _rules(groups: Sequence[Group]) -> Iterator[str]:
    first = 3
    for group in groups:
        last = first + _span(group.leaves) - 1
        if group.head:
            yield rf"\cmidrule(lr){{{first}-{last}}}"
        first = last + 1


def _spanned(leaves: Sequence[Leaf], lines: Sequence[str], is_last: bool) -> str:
    """A head over columns, in as many lines as it has; the last one ends where the table does."""
    text = r"\\".join(map(escape, lines))
    text = text if len(lines) == 1 else rf"\shortstack{{{text}}}"
    span, is_number = _span(leaves), len(leaves) == 1 and not leaves[0].spread_width
    return text if is_number else rf"\multicolumn{{{span}}}{{c{'@{}' if is_last else ''}}}{{{text}}}"


def _body(one: PaperTable, reasons: dict[str, str]) -> Iterator[str]:
    """The models by family, trivial baselines below a rule."""
    span = 2 + _span(one.leaves)
    for place, (_, own) in enumerate(groupby(one.models, key=lambda model: model.family)):
        models = list(own)
        if models[0].is_floor and place:
            yield r"\midrule"
        title = "trivial baselines, heuristics, references" if models[0].is_floor else models[0].group
        yield rf"\multicolumn{{{span}}}{{@{{}}l}}{{\emph{{{escape(title)}}}}} \\"
        for model in models:
            cells = [_cell(leaf, leaf.numbers[model.label], reasons) for leaf in one.leaves]
            yield " & ".join([_label(model), paper_table.parameters(model), *cells]) + r" \\"


def _label(model: Model) -> str:
    if paper_table.label_lines(model) == 1:
        return escape(model.title)
    text = escape(model.title, breakable=True)
    return rf"\parbox[t]{{{LABEL}pt}}{{\raggedright\hangindent={INDENT}pt\strut {text}\strut}}"


def _cell(leaf: Leaf, number: Number, reasons: dict[str, str]) -> str:
    has_spread = bool(leaf.spread_width)
    if number.reason:
        text = rf"{NO_NUMBER}\textsuperscript{{{reasons[number.reason]}}}"
        return rf"\multicolumn{{2}}{{c}}{{{text}}}" if has_spread else text
    text = escape(number.value)
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(number.rank, text)
    text = rf"\textit{{{text}}}" if number.is_chance else text
    spread = rf"\tmspread{{{escape(number.spread)}}}" if number.spread else ""
    return f"{text} & {spread}" if has_spread else text


def _reasons(one: PaperTable) -> dict[str, str]:
    """A letter for each reason why a number is missing, in the order in which a reader meets them."""
    told = (leaf.numbers[model.label].reason for model in one.models for leaf in one.leaves)
    return {reason: _letters(place) for place, reason in enumerate(dict.fromkeys(filter(None, told)))}


def _letters(place: int) -> str:
    """0 -> "a", 25 -> "z", 26 -> "aa"."""
    return (_letters(place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)


def _note(evaluation: Evaluation, one: PaperTable, reasons: dict[str, str], below: str) -> str:
    """What is needed to read the table, why numbers are missing, and under which conditions the others came about."""
    numbers = [leaf.numbers[model.label] for model in one.models for leaf in one.leaves]
    ranks, spreads = {number.rank for number in numbers}, {number.spread[:1] for number in numbers}
    told = [one.told] if one.told else []
    reach = ", and models whose 95 % confidence interval reaches it" if "±" in spreads else ""
    told += [f"Bold: the best{reach}"] if 1 in ranks else []
    told += [f"underlined: the second{', likewise' if reach else ''}"] if 2 in ranks else []
    chance = f"italic: not shown to be better than {evaluation.counted()}, and without a rank"
    told += [chance] if any(number.is_chance for number in numbers) else []
    told += [f"± half of the 95 % confidence interval{_over(evaluation)}"] if "±" in spreads else []
    told += ["↑ higher is better"] if "↑" in one.caption + one.told else []
    told += ["↓ lower is better"] if "↓" in one.caption + one.told else []
    held = [table.notes(evaluation, one.source)] if evaluation.is_contest else table.held(evaluation, one.source)
    told += [" ".join(text.split()).rstrip(".") for text in dict.fromkeys(held)]
    told += [f"{letter}: {reason}" for reason, letter in reasons.items()]
    return "; ".join(told) + ". " + below


def _over(evaluation: Evaluation) -> str:
    seeds = table.most_seeds(evaluation)
    return f" over {evaluation.repeats(seeds)}" if seeds > 1 else ""
