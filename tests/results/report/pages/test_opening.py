"""What a page opens with: sentences, a figure, one table with ranks, ties, costs and what did not learn."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from results.plans.method.claims import Claim
from results.plans.paper import Form, Printed
from results.report import evaluations, report
from results.report.figures.catalogue import Drawing
from results.report.findings import claims
from results.report.findings.claims import judge
from results.report.pages import markdown_page, opening
from results.report.pages.template import markdown
from results.report.section import PageText
from results.report.tables import summary
from tests.support.synthetic import cell, rows_of

VALUES = {  # by model, a seed each
    "transformer": (0.90, 0.92, 0.91), "retnet": (0.70, 0.95, 0.88), "mamba": (0.60, 0.61, 0.60), "rmt": (0.0, 0.0, 0.0),
    "deltanet": (0.10, 0.11, 0.10),
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    rows = rows_of(cell("", "needle", "floors"), [("floor: guess", "accuracy", 0.1, 400, {"length": 64})])
    for model, values in VALUES.items():
        for seed, value in enumerate(values):
            measured = [
                (None, "accuracy", value, 400, {"length": 64}),
                (None, "training_seconds", 2.0, 9, {"tokens": 5000}),
            ]
            rows += rows_of(cell(model, "needle", seed=seed), measured)
    return evaluations.grouped(rows)


def line(found, model: str) -> str:
    return next(one for one in summary.markdown(found).splitlines() if f" {model} " in one)


def test_the_best_is_bold_and_the_second_is_underlined(found):
    assert "| **91.0 ± 2.5** ✓ |" in line(found, "transformer")
    assert "| <u>84.3 ± " in line(found, "retnet")  # that its wide interval holds the best number is no merit
    assert "| <u>60.3 ± " in line(found, "mamba")  # within that of retnet


def test_whoever_lies_within_the_interval_of_the_best_shares_its_mark(found):
    evaluation, column = found[0], summary.headline(found[0])
    best = evaluation.point("transformer", column.metric, column.where)
    wide = dataclasses.replace(best, low=0.8)
    named = [m.label for m in evaluation.learners if summary.ties(1, best, evaluation, m, column)]
    more = [m.label for m in evaluation.learners if summary.ties(1, wide, evaluation, m, column)]
    assert named == ["transformer"] and set(more) == {"transformer", "retnet"}


def test_what_did_not_learn_says_so(found):
    assert "| did not learn |" in line(found, "rmt")
    assert "| did not learn (10.3 ± " in line(found, "deltanet")


def test_the_table_tells_what_a_model_costs(found):
    head = summary.markdown(found).splitlines()[0]
    assert head.endswith("| parameters | state | tokens/s in training (needle) |")
    assert line(found, "mamba").endswith(" KiB | 2,500 |")


def test_a_page_opens_with_a_sentence_a_claim_and_its_figure(found):
    claim = Claim("Attention finds more", "a paper", "transformer", "mamba", "needle", "accuracy")
    verdicts = judge([claim], found)
    (sentence,) = opening.sentences(verdicts, found)
    assert sentence.startswith("? **Attention finds more** *undecided*<br><small>accuracy of needle: difference +30.7")
    assert "3 shared seeds" in sentence
    shown = markdown(sentence)
    assert "<br><small>accuracy" in shown and shown.endswith("</small></p>\n")
    opposite = opening.sentences([replace(one, verdict=claims.OPPOSITE) for one in verdicts], found)
    assert opposite[0].startswith(
        "✘ **Attention finds more** *opposite direction at this scale*<br>"
        "<small>mamba does better than transformer, against the claim; "
    )
    places = (("a", "other"), ("b", "needle"), ("form", "needle"), ("long", "needle"))
    drawings = [Drawing(name, name, slug, ["figure"]) for name, slug in places]
    form = Form("form", "A paper's figure", "needle", "accuracy", Printed("any"))
    other = replace(form, name="long", where={"length": 64})
    assert opening.leading(drawings, verdicts, [], found) == "b"
    assert opening.leading(drawings, verdicts, [form], found) == "form"
    assert opening.leading(drawings, verdicts, [other, form], found) == "form"  # the claim is of all lengths
    asked = [replace(one, claim=replace(claim, where={"length": 64})) for one in verdicts]
    assert opening.leading(drawings[:2] + drawings[3:], asked, [other], found) == "long"
    assert opening.leading(drawings, verdicts, [form], found, "a") == "a"
    assert opening.leading(drawings, verdicts, [form], found, "aa") == "form"
    assert opening.leading([], verdicts, [], found) == ""
    drawings.append(Drawing("claims", "claims", "", ["figure"]))
    assert opening.leading(drawings, verdicts, [], found) == "claims"
    assert opening.leading(drawings, verdicts, [form], found) == "form"
    assert opening.leading(drawings, verdicts, [replace(form, task="mqar")], found) == "claims"


def test_without_claims_it_says_who_leads(found):
    (sentence,) = opening.sentences([], found)
    assert sentence.startswith("**needle, accuracy %, mean over all**: transformer is best with 91.0 ± 2.5; ")
    assert "then retnet" in sentence and "3 of 5 models are better than the best" in sentence
    page = markdown_page.page(
        found, {found[0].slug: {f"{found[0].slug}.md": "numbers"}}, [], PageText("T", told=(sentence,))
    )
    assert page.index(sentence) < page.index("| family | model |") < page.index("## needle") < page.index("<details>")


def test_of_one_seed_it_says_that_there_is_no_interval():
    rows = rows_of(
        cell("", "language-modelling", "floors"), [("floor: guess", "bits_per_byte", 4.0, 400, {"length": 64})]
    )
    for model, value in (("transformer", 3.0), ("mamba", 2.5), ("rmt", 4.5)):
        rows += rows_of(cell(model, "language-modelling"), [(None, "bits_per_byte", value, 400, {"length": 64})])
    (sentence,) = opening.sentences([], evaluations.grouped(rows))
    assert "2 of 3 models are better than the best trivial baseline, of one seed without an interval." in sentence


def test_where_nobody_learned_nobody_is_called_best():
    rows = rows_of(cell("", "needle", "floors"), [("floor: guess", "accuracy", 0.3, 400, {"length": 64})])
    for model, value in (("transformer", 0.1), ("mamba", 0.2)):
        rows += rows_of(cell(model, "needle"), [(None, "accuracy", value, 400, {"length": 64})])
    (sentence,) = opening.sentences([], evaluations.grouped(rows))
    assert "none of 2 models is better than the best trivial baseline (30.0); mamba comes nearest with 20.0" in sentence
    assert "is best" not in sentence


def test_a_single_model_is_not_called_best_nor_counted_as_many():
    rows = rows_of(
        cell("", "language-modelling", "floors"), [("floor: guess", "bits_per_byte", 4.0, 400, {"length": 64})]
    )
    rows += rows_of(cell("mamba", "language-modelling"), [(None, "bits_per_byte", 2.5, 400, {"length": 64})])
    (sentence,) = opening.sentences([], evaluations.grouped(rows))
    assert "mamba has 2.500; 1 of 1 model is better than" in sentence and "best with" not in sentence
    page = markdown_page.page(
        evaluations.grouped(rows), {"language-modelling": {"language-modelling.md": "numbers"}}, [], PageText("T")
    )
    assert "- language-modelling: 1 model, 1 trivial baseline, heuristic or reference\n" in page


def test_a_page_breaks_lines_in_a_table():
    assert "70.0<br>1 of 5" in markdown("| a |\n|---|\n| 70.0<br>1 of 5 |") and "&lt;i&gt;" in markdown("<i>")
    assert markdown("<sub>A note.</sub>") == "<p><sub>A note.</sub></p>\n"


def test_a_page_says_that_the_figure_it_is_to_open_with_is_not_drawn(tmp_path):
    rows = rows_of(cell("transformer", "needle"), [(None, "accuracy", 0.5, 400, {"length": 64})])
    page = report.report(rows, tmp_path, opens_with="no-such-figure").read_text()
    assert "- no-such-figure: the plan opens with it" in page
