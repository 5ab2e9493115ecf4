"""Figures in papers' forms and the printed tables of a plan: what is ours and what is printed stands apart."""

from __future__ import annotations

import pytest

from results.plans.paper import Form, Printed
from results.report import evaluations, report
from results.report.figures import artists, catalogue, frame, style
from results.report.figures.kinds import paper
from results.report.figures.words import Words
from results.report.tables import printed
from results.rows import published
from tests.support import synthetic

MODELS = ("transformer", "mamba2", "titans-lmm", "titans-mac")
TABLE = "titans_v1_table2_sniah"
NEEDLE = Form(
    "needle-n", "Number in prose", "needle", "compact_exact_match", Printed(TABLE, {"task": "S-NIAH-N"}),
    {"variant": "s-niah-2"}, same={"Mamba2": "mamba2", "Titans (MAC)": "titans-mac"},
)  # fmt: skip
SPEED = Form(
    "speed", "Training", "throughput", "training_tokens_per_second", Printed("gdn_fig3_training_throughput"),
    same={"Transformer++": "transformer"}, by_batch=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def exams():
    return evaluations.grouped(synthetic.comparison(MODELS))


def curves(panel) -> list[tuple]:
    """The places of every look of markers on a panel, and the look."""
    found = [artist for artist in panel.artists if isinstance(artist, artists.Curves)]
    return [(rows[0], look) for artist in found for look, rows in artist.marks]


def axes(exams, form):
    exam = next(exam for exam in exams if exam.task == form.task)
    with style.settings():
        return exam, paper.figure(exam, form)


def test_ours_are_filled_and_printed_values_hollow_on_one_scale(exams):
    exam, drawn = axes(exams, NEEDLE)
    here, printed_panel = drawn.axes[:2]  # ours end at 512 tokens, where the paper has not begun
    assert [panel.get_title(loc="left") for panel in (here, printed_panel)] == ["measured here", "printed elsewhere"]
    assert here.get_ylim() == printed_panel.get_ylim()
    lines = [*curves(here), *curves(printed_panel)]
    ours = [line for line in lines if line[1]["color"] != "white"]
    theirs = [line for line in lines if line[1]["color"] == "white"]
    assert len(ours) == len(MODELS) and len(theirs) == len(set(published.select(TABLE, {"task": "S-NIAH-N"}).model))
    first = exam.point("transformer", "compact_exact_match", {"variant": "s-niah-2", "length": 128})
    assert ours[0][0][0].tolist() == pytest.approx([128, 100 * first.value])
    mac, look = next(line for line in theirs if line[0][:, 1].tolist() == [99.6, 98.2, 97.6, 97.4])
    assert mac[:, 0].tolist() == [2048, 4096, 8192, 16384]
    own = style.line(next(m for m in exam.learners if m.label == "titans-mac"))
    assert look["edgecolors"] == own["color"] and look["marker"] == own["marker"]
    texts = [word.text for artist in drawn.axes[-1].artists if isinstance(artist, Words) for word in artist.words]
    assert (
        texts.index("measured here")
        < texts.index("transformer")
        < texts.index("printed elsewhere")
        < texts.index("TTT")
    )
    note = " ".join(drawn.texts[1].get_text().split())
    assert note.endswith("their protocol: zero-shot, after training on running text of 4K tokens")
    assert (
        "width 64" in note
        and "protocol trained" in note
        and "parameters not stated" in note.replace(" for this table", "")
    )


def test_speeds_are_drawn_in_the_papers_unit_with_length_and_batch(exams):
    exam, drawn = axes(exams, SPEED)
    panel, theirs = drawn.axes[:2]
    ours = curves(panel)[0][0]
    point = exam.point("transformer", "training_tokens_per_second", {"length": 128})
    assert ours[0, 1] == pytest.approx(point.value / 1000)
    labels = [label for one in (panel, theirs) for label in frame.ticks(one.xaxis)[1]]
    assert "2K\nx 16" in labels and "16K\nx 2" in labels and labels[0].startswith("128")
    assert "10³" in panel.get_ylabel()


def test_a_report_shows_the_plans_printed_tables_and_figures_and_redraws_the_same(tmp_path):
    rows = synthetic.comparison(MODELS)
    # `only`: the other figures are test_report's
    shown = {"tables": [Printed(TABLE, {"task": ["S-NIAH-N", "S-NIAH-PK"]})], "forms": [NEEDLE, SPEED], "only": []}
    page = report.report(rows, tmp_path / "one", title="Made up", **shown).read_text()
    report.report(reversed(rows), tmp_path / "two", title="Made up", **shown)
    files = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*.*")}
    assert files == {path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*.*")}
    assert {"needle-n.png", "speed.svg", f"printed-{TABLE}.csv"} <= {path.name for path in files}
    assert page.count("Printed elsewhere (not measured here)") == 1  # the plan's own, in the place of the task's
    assert "**Table 2, S-NIAH-N: accuracy %** (printed)" in page
    assert "under its protocol: zero-shot, after training on running text of 4K tokens. Nothing here" in page
    assert (
        "| Titans (MAC) | not stated for this table | not stated | exact from table | 99.6 | 98.2 | 97.6 | 97.4 |"
        in page
    )
    assert (tmp_path / "one" / "report.html").read_text().count("<h2") > 5


def test_a_figure_without_rows_says_why(tmp_path):
    rows = [row for row in synthetic.comparison(MODELS[:1]) if row["task"] == "throughput"]
    drawn = catalogue.draw(evaluations.grouped(rows), tmp_path, only=[], forms=[NEEDLE])
    (one,) = [drawing for drawing in drawn if drawing.name == NEEDLE.name]
    assert not one.files and one.reason == "no rows give compact exact match of needle by length"


def test_every_printed_table_can_be_shown():
    for name in published.names():
        one = Printed(name)
        section = printed.sections([one])[0]
        assert section.title.startswith(printed.HEADING) and len(section.text.splitlines()) > 4
        assert printed.csv_of(one).count("\n") >= len(published.load(name)) + 1
