"""The web page and the LaTeX tables: whole, closed, self-contained, and true to the rows."""

from __future__ import annotations

import html.parser
import json
import re

import pytest

from results.report import evaluations
from results.report.figures import catalogue
from results.report.pages import html_page
from results.report.section import Section
from results.report.tables import table
from results.rows import metrics
from tests.support import synthetic

FEW = ("transformer", "retnet", "titans-mac")
VOID = {"meta", "link", "br", "hr", "img", "input"}
SVG = '<?xml version="1.0"?>\n<svg viewBox="0 0 1 1"><defs><path id="p1" d="M0 0"/></defs><use href="#p1"/></svg>'


class Reader(html.parser.HTMLParser):
    """Collects elements and refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("table", "tr", "h1", "h2", "h3", "li", "p", "th", "td", "figcaption", "form", "summary"):
            self.texts.append((tag, ""))

    def handle_data(self, data):
        if self.texts and self.open and self.open[-1] not in ("script", "style"):
            tag, before = self.texts[-1]
            self.texts[-1] = tag, " ".join(f"{before} {data}".split())

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def exams():
    return evaluations.grouped(
        synthetic.fails(synthetic.comparison(FEW, seeds=(0, 1)), "retnet", "babilong", "out of <memory>")
    )


@pytest.fixture(scope="module")
def page(exams, tmp_path_factory) -> str:
    vector = tmp_path_factory.mktemp("figures") / "a.svg"
    vector.write_text(SVG)
    drawings = [catalogue.Drawing(name, f"Figure & {name}", "needle", [vector]) for name in ("one", "two")]
    sections = (Section("Fairness", "| a |\n|---|\n| <b>1</b> |", "needle"), Section("Findings", "*None.*"))
    look = html_page.PageText("Made <up>", "Which?", sections=sections)
    return html_page.page(exams, [None] * len(exams), drawings, look)


def test_the_page_is_well_formed_and_asks_for_nothing_else(page):
    read = Reader(page)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 5
    links = [a[name] for _, a in read.elements for name in ("href", "src", "xlink:href", "action") if a.get(name)]
    files = [
        a["href"] for a in read.all("a") if a["href"].startswith("figures/")
    ]  # which a reader may take, and no page loads
    assert files == ["figures/a.svg"] * 2
    assert links and all(link.startswith("#") or link == "data:," or link in files for link in links)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "url(http" not in page and "@import" not in page and "fetch(" not in page
    assert "{{" not in page and "{%" not in page and "Made &lt;up&gt;" in page and "<b>1</b>" not in page


def test_a_reader_sees_every_part_in_its_order_and_every_cell_of_every_table(page, exams):
    read = Reader(page)
    texts = read.texts
    chapters = [*(exam.title for exam in exams), "Findings"]
    headings = [text for tag, text in texts if tag in ("h1", "h2") and text]
    assert headings == ["Made <up>", "At a glance", *chapters]
    assert [text for tag, text in texts if tag == "li"] == chapters
    assert [svg["aria-label"] for svg in read.all("svg")] == ["Figure & one", "Figure & two"]
    assert [text for tag, text in texts if tag == "figcaption"] == ["As a file: SVG"] * 2
    said = [text for tag, text in texts if tag == "p"]
    assert said[:1] == ["Which?"] and "None." in said
    for exam in exams:
        for one in table.layout(exam):
            begin = texts.index(("h3", f"{exam.title}: {one.title}"))
            end = next(i for i in range(begin, len(texts)) if texts[i][0] == "p")
            assert texts[begin + 1 : end] == [("table", ""), *_cells(exam, one)]
            notes = table.notes(exam, one), table.conditions(exam, "transformer", None)
            assert texts[end] == ("p", " ".join(" ".join(filter(None, notes)).split()))


def _cells(exam, one) -> list[tuple[str, str]]:
    heads = ["model", *(column.header for column in one.columns), "parameters", "state", "family", "provider"]
    found = [("tr", ""), *(("th", " ".join(head.split())) for head in heads)]
    for model in table.shown(exam, one):
        facts = ["", ""] if model.is_floor else [table.parameters(exam, model, "transformer")]
        facts += [] if model.is_floor else [metrics.byte_size(model.state_bytes)]
        texts = [*(table.cell(exam, model, column, None) for column in one.columns), *facts, model.group]
        found += [("tr", ""), ("th", model.title)]
        found += [("td", " ".join(text.split())) for text in (*texts, table.providers(exam, model))]
    return found


def test_tables_have_headers_and_figures_have_words(page, exams):
    read = Reader(page)
    assert all(attributes.get("scope") in ("col", "row", None) for attributes in read.all("th"))
    tables = sum(len(table.layout(exam)) for exam in exams)
    assert sum("aria-label" in attributes for attributes in read.all("table")) == tables
    assert [a["aria-label"] for a in read.all("svg")] == ["Figure & one", "Figure & two"]
    assert page.index("<h3>Fairness</h3>") > page.index('id="needle"')
    assert page.index('id="findings"') > page.index('id="throughput"')
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_every_number_leads_to_the_cells_that_it_came_from(page, exams):
    stored = json.loads(
        re.search(r'<script type="application/json" id="rows">(.*?)</script>', page, re.DOTALL).group(1)
    )
    buttons = [a for a in Reader(page).all("button") if "data-cells" in a]
    assert {key for a in buttons for key in a["data-cells"].split()} == set(stored)
    by_cell = {row["cell"]: row for exam in exams for rows in exam.rows.values() for row in rows}
    for cell, facts in stored.items():
        assert facts["commit"] == by_cell[cell]["commit"] and facts["seed"] == by_cell[cell]["seed"]
        assert facts["settings"] == by_cell[cell]["settings"] and facts["machine"] == "A CPU, 2 cores"
    needle = next(exam for exam in exams if exam.task == "needle")
    column = table.layout(needle)[0].columns[0]
    point = needle.point("titans-mac", column.metric, column.where)
    said = next(a for a in buttons if a["data-what"].startswith(f"titans-mac, {column.metric.replace('_', ' ')}"))
    assert f"{point.value:.6g} from {point.count:,} items, 2 seeds" in said["data-what"]
    assert len(said["data-cells"].split()) == 2
    assert "failed: out of &lt;memory&gt;" in page
