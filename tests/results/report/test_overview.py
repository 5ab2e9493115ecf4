"""The overview: columns of one evaluation each, ranks within them, the Pareto front, and a page that holds it all."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pandas as pd
import pytest

from results.plans.method.claims import read_claim
from results.plans.toml_reader import TableReader
from results.report.evaluations import grouped
from results.report.findings.claims import judge
from results.report.overview import figures, page
from results.report.overview.abilities import ABILITIES
from results.report.overview.matrix import Source, entry, evidence, leading, models
from tests.support import synthetic

TABLE = {
    "text": "RetNet beats attention", "source": "RetNet, Table 1", "better": "retnet", "worse": "transformer",
    "task": "language-modelling", "metric": "bits_per_byte", "where": {"length": 512},
}  # fmt: skip
LOSSES = {"transformer": 3.0, "retnet": 2.5, "mamba": 2.5, "deltanet": 2.9}
SPEEDS = {"transformer": 1000.0, "retnet": 3000.0, "mamba": 500.0, "deltanet": 4000.0}


def _rows(task, metric, values, seeds=2, where=None):
    rows = []
    for model, value in values.items():
        for seed in range(seeds):
            cell = synthetic.cell(model, task, seed=seed)
            rows += synthetic.rows_of(cell, [(None, metric, value, 1000, where or {"length": 512})])
    return rows


@pytest.fixture(scope="module")
def sources():
    """Two comparisons: one of text and speed, one with fewer models and a needle."""
    first = _rows("language-modelling", "bits_per_byte", LOSSES)
    timed = [
        row
        for model, speed in SPEEDS.items()
        for row in synthetic.rows_of(
            synthetic.cell(model, "throughput", kind="timing"),
            [(None, "training_tokens_per_second", speed * 512 / n, 3, {"length": n}) for n in (512, 1024)],
        )
    ]
    small = {"transformer": 4.0, "retnet": 3.0}
    second = _rows("language-modelling", "bits_per_byte", small) + _rows(
        "needle", "exact_match", {"transformer": 0.2, "retnet": 0.9}, where={"length": 1024, "variant": "s-niah-1"}
    )
    claim = read_claim(TABLE, TableReader("x"))
    found = []
    for name, rows in (("large", [*first, *timed]), ("small", second)):
        evaluations = tuple(grouped(rows))
        verdicts = tuple(judge([claim], evaluations)) if name == "small" else ()
        found.append(Source(name, name.title(), f"../{name}/report.md", evaluations, verdicts))
    return found


def test_columns_are_one_evaluation_each_and_the_one_of_most_models_leads(sources):
    found = evidence(sources)
    told = [(one.ability.name, one.source.name) for one in found]
    assert told == [("text", "large"), ("text", "small"), ("needle", "small"), ("training speed", "large")]
    assert [(one.ability.name, one.source.name) for one in leading(found)] == [told[0], *told[2:]]
    speed = found[-1]
    assert speed.column.where == {"length": 1024}  # the longest alone


def test_ranks_are_counted_in_a_column_and_equal_values_share_one(sources):
    text, other = evidence(sources)[:2]
    ranks = {model.label: entry(text, model).rank for model in models([text])}
    assert ranks == {"retnet": 1, "mamba": 1, "deltanet": 3, "transformer": 4}
    assert {model.label: entry(other, model).rank for model in models([other])} == {"retnet": 1, "transformer": 2}
    speed = evidence(sources)[-1]
    assert next(iter(speed.entries))[1] == "deltanet" and next(iter(speed.entries.values())).value == 2000.0


def test_what_is_no_better_than_guessing_has_no_colour():
    where = {"length": 1024, "variant": "s-niah-1"}
    known = {"deltanet": 0.9, "mamba": 0.6, "retnet": 0.24, "transformer": 0.11}
    guesses = synthetic.cell("", "needle", kind="floors"), [("floor: any value", "exact_match", 0.25, 1000, where)]
    rows = [*_rows("needle", "exact_match", known, where=where), *synthetic.rows_of(*guesses)]
    found = Source("s", "S", "s.md", tuple(grouped(rows)))
    one = evidence([found])[0]
    shades = {model.label: entry(one, model).shade for model in models([one])}
    assert shades == {"deltanet": 1.0, "mamba": pytest.approx(0.2), "retnet": 0.0, "transformer": 0.0}


def test_the_front_is_who_no_other_beats_in_both(sources):
    points = [(name, SPEEDS[name], LOSSES[name]) for name in LOSSES]
    best = figures.front(points, 1, -1)
    assert [name for name, *_ in best] == ["retnet", "deltanet"]  # mamba is as good as retnet, but slower
    assert [name for name, *_ in figures.front(points, -1, 1)] == ["mamba", "transformer"]
    twins = [("a", 1.0, 1.0), ("b", 1.0, 1.0)]
    assert len(figures.front(twins, 1, 1)) == 2


class Tags(HTMLParser):
    """What a page holds of each tag, and whether all are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append(dict(attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_every_number_and_claim(sources, tmp_path):
    written = page.write(sources, tmp_path, fixed=["retnet"])
    text = written.read_text()
    place = "../large/report.md#numbers-language-modelling"
    assert f"[**2.500 ± 0.000**]({place}) <sub>1</sub>" in text and f"[text]({place})" in text
    assert "<u>" in text and "[text](../small/report.md#numbers-language-modelling)" in text
    assert "4 models in 2 comparisons, 3 abilities and costs. 1 claim: " in text
    assert "RetNet beats attention" in text
    assert "## The other evaluations of each ability" in text
    html = (tmp_path / "overview.html").read_text()
    parser = Tags()
    parser.feed(html)
    assert not parser.open and '<tr data-family="' in html and 'data-fixed="1" data-name="retnet"' in html
    numbers = pd.read_csv(tmp_path / "overview.csv")
    assert len(numbers) == 4 + 2 + 2 + 4 and len(parser.cells) >= len(numbers)
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert drawn == {"matrix.png", "cost-of-text.png", "cost-of-needle.png"}
    assert all(f"figures/{name}" in text for name in drawn)


def test_equal_rows_give_equal_bytes_and_old_figures_go(sources, tmp_path):
    stale = tmp_path / "figures" / "cost-of-nothing.png"
    stale.parent.mkdir()
    stale.write_bytes(b"")
    page.write(sources, tmp_path)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert stale not in first
    page.write(sources, tmp_path)
    assert first == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_nothing_to_look_over_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="run one first, or take --reference"):
        page.write([], tmp_path)


def test_abilities_name_tasks_that_there_are():
    import tasks

    named = {task for ability in ABILITIES for task in ability.tasks} - {"throughput"}
    later = {"overflow", "nonlinear-recall", "flow", "modular-arithmetic", "flip-flop"}
    assert named - set(tasks.names()) <= later


def test_every_number_of_the_page_opens_its_rows_and_leads_to_the_page_that_is_drawn(sources, tmp_path):
    drawn = tmp_path / "large"
    drawn.mkdir()
    (drawn / "report.html").touch()
    folder = page.write(sources, tmp_path / "overview").parent
    parser = Buttons()
    parser.feed((folder / "overview.html").read_text())
    rows = json.loads(parser.rows)
    assert len(parser.buttons) == len(pd.read_csv(folder / "overview.csv"))
    shown = [cell for button in parser.buttons for cell in button["data-cells"].split()]
    measured = {
        row["cell"] for source in sources for one in source.evaluations for of in one.rows.values() for row in of
    }
    assert set(rows) == set(shown) <= measured
    assert list(rows[shown[0]])[:2] == ["commit", "when"]
    pages = {button["data-page"].partition("#")[0] for button in parser.buttons}
    assert pages == {"../large/report.html", "../small/report.md"}  # the other's is not drawn


class Buttons(HTMLParser):
    """The buttons of a page that open rows, and the rows."""

    def __init__(self):
        super().__init__()
        self.buttons, self.rows, self.inside = [], "", False

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.inside = known.get("id") == "rows"
        if tag == "button" and "data-cells" in known:
            self.buttons.append(known)

    def handle_data(self, data):
        self.rows += data if self.inside else ""

    def handle_endtag(self, tag):
        self.inside = False


def test_the_tally_says_which_decided_claims_say_little(sources):
    """Five seeds that both know all: level, and counted as a question too easy for both."""
    rows = _rows(
        "needle", "exact_match", {"transformer": 1.0, "retnet": 1.0}, 5, {"length": 1024, "variant": "s-niah-1"}
    )
    asked = {"task": "needle", "metric": "exact_match", "where": {"length": 1024}, "margin": 0.05}
    evaluations = tuple(grouped(rows))
    level = judge([read_claim(TABLE | asked, TableReader("x"))], evaluations)
    assert [(one.verdict, one.extreme) for one in level] == [
        ("level at this scale", "the question is too easy for both")
    ]
    easy = Source("easy", "Easy", "../easy/report.md", evaluations, tuple(level))
    assert page._tally([easy]) == (
        "1 claim: 1 level at this scale. 1 of the decided asks what neither of its models learned or both know, and says little."
    )
    assert level[0].sentence == "retnet and transformer lie less than 5 points apart, for both solve it"
    assert "says little" not in page._tally(sources)
