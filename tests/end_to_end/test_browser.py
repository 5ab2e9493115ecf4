"""The pages in a real browser: they sort, filter, say where a number comes from, are used by keyboard, and never scroll sideways.

Needs playwright (`pip install -e ".[browser]"`) and a Chromium: what TITANOMACHY_CHROMIUM names, else the one of the system, else
playwright's own (`playwright install chromium`). Skipped with the reason where either is absent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from results.plans.method.claims import read_claim
from results.plans.toml_reader import TableReader
from results.report.evaluations import grouped
from results.report.figures import style
from results.report.findings.claims import judge
from results.report.overview import page as overview
from results.report.overview.matrix import Source
from results.report.report import report
from schema.places import ROOT
from tests.support import synthetic

playwright = pytest.importorskip(
    "playwright.sync_api", reason='playwright is not installed (pip install -e ".[browser]")'
)

MODELS = ("transformer", "retnet", "mamba", "deltanet", "titans-mac")
SYSTEM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS, SCHEMES = (390, 1280, 1920), ("light", "dark")
CLAIM = {
    "text": "RetNet beats attention", "source": "RetNet, Table 1", "better": "retnet", "worse": "transformer",
    "task": "language-modelling", "metric": "bits_per_byte", "where": {"length": 512},
}  # fmt: skip
Open = Callable[..., "playwright.Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    named = os.environ.get("TITANOMACHY_CHROMIUM")
    path = named or next(filter(None, map(shutil.which, SYSTEM)), None)
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            if named:
                raise
            pytest.skip(f"no Chromium could be started (set TITANOMACHY_CHROMIUM to one): {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture
def show(browser) -> Iterator[Open]:
    """A function that opens a file at a width; what the page gets wrong, and whatever it asks of the web, fails the test."""
    wrong: list[str] = []
    contexts = []

    def asked(request: playwright.Request) -> None:
        if request.url.partition(":")[0] not in ("file", "data", "blob", "about"):
            wrong.append(f"asks for {request.url}")

    def shown(path: Path, width: int = 1280, scheme: str = "light") -> playwright.Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", asked)
        page.goto(path.as_uri())
        return page

    yield shown
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The page of a made-up comparison of two seeds, and the overview of two comparisons, one of which lacks a model."""
    folder = tmp_path_factory.mktemp("pages")
    claim, found = read_claim(CLAIM, TableReader("x")), []
    rows = synthetic.comparison(MODELS, seeds=(0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            style.SETTINGS, "pdf.fonttype", 3
        )  # to choose letters from a font file takes as long as the drawing
        report(rows, folder / "large", title="Large", question="Which is it?", claims=[claim], with_printed=False)
    for name, models in (("large", MODELS), ("small", MODELS[:-1])):
        rows = synthetic.comparison(models, seeds=(0, 1))
        evaluations = tuple(grouped(rows))
        found.append(
            Source(name, name.title(), f"../{name}/report.md", evaluations, tuple(judge([claim], evaluations)))
        )
    overview.write(found, folder / "overview", fixed=["retnet", "mamba"])
    return {"comparison": folder / "large" / "report.html", "overview": folder / "overview" / "overview.html"}


def column(page: playwright.Page, table: str, name: str) -> list[float]:
    """What a column of a table's models shows to be sorted by, from the top."""
    script = """([table, name]) => {
      const all = document.querySelector(table), heads = [...all.tHead.rows[0].cells];
      const at = heads.findIndex(head => head.querySelector("button")?.textContent.trim() === name);
      return [...all.tBodies[0].rows].filter(line => !line.hidden && line.cells[at].dataset.value)
        .map(line => parseFloat(line.cells[at].dataset.value));
    }"""
    return page.evaluate(script, [table, name])


@contextmanager
def focused(page: playwright.Page, element: playwright.Locator) -> Iterator[None]:
    """With the keyboard on an element, which shows that it has it."""
    element.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert element.evaluate("one => one === document.activeElement")
    assert element.evaluate("one => getComputedStyle(one).outlineStyle") != "none"
    yield


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["comparison", "overview"])
def test_a_page_does_not_scroll_sideways(show, pages, name: str, width: int, scheme: str):
    page = show(pages[name], width, scheme)
    for opened in (False, True):
        page.evaluate("open => document.querySelectorAll('details').forEach(one => { one.open = open })", opened)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(23, 24, 26)"
    )


def test_a_table_of_a_comparison_sorts_by_mouse_and_by_keyboard(show, pages):
    page = show(pages["comparison"])
    page.locator("summary").first.click()
    table = "table[aria-label]"
    head = page.locator(f"{table} thead th").nth(1)
    name = head.locator("button").text_content().strip()
    before = column(page, table, name)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, table, name) == sorted(before) != before
    with focused(page, head.locator("button")):
        page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, table, name) == sorted(before, reverse=True)


def test_a_number_says_which_rows_it_is_from(show, pages):
    page = show(pages["comparison"])
    page.locator("summary").first.click()
    button, dialog = page.locator("td button[data-cells]").first, page.locator("dialog#provenance")
    assert not dialog.is_visible()
    with focused(page, button):
        page.keyboard.press("Enter")
    assert dialog.is_visible()
    assert dialog.locator("h2").text_content() == button.get_attribute("data-what")
    cells = button.get_attribute("data-cells").split()
    assert len(cells) == 2 and dialog.locator("h3").all_text_contents() == [f"cell {cell}" for cell in cells]
    assert {"commit", "when", "seed", "code_hash"} <= set(dialog.locator("dt").all_text_contents())
    assert "0123456789abcdef" in dialog.locator("dd").all_text_contents()
    page.keyboard.press("Escape")
    assert not dialog.is_visible() and button.evaluate("one => one === document.activeElement")


def test_a_number_of_the_overview_says_which_rows_it_is_from_and_leads_to_its_tables(show, pages):
    page = show(pages["overview"])
    button, dialog = page.locator("#matrix td button").first, page.locator("dialog#provenance")
    button.click()
    assert dialog.is_visible()
    page.keyboard.press("Escape")
    with focused(page, button):
        page.keyboard.press("Enter")
    cells = button.get_attribute("data-cells").split()
    assert len(cells) == 2 and dialog.locator("h3").all_text_contents() == [f"cell {cell}" for cell in cells]
    assert {"commit", "when", "seed", "settings"} <= set(dialog.locator("dt").all_text_contents())
    link = dialog.locator("#provenance-page a")
    assert link.get_attribute("href") == button.get_attribute("data-page")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/large/report.html#numbers-*")
    opened = page.evaluate("document.getElementById(location.hash.slice(1)).closest('details').open")
    assert opened and page.locator("details[open] table").first.is_visible()


@pytest.mark.parametrize("name", ["comparison", "overview"])
def test_what_is_wider_than_a_telephone_scrolls_by_keyboard(show, pages, name: str):
    page = show(pages[name], width=390)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    wide = page.locator(".wide").filter(has=page.locator("table tbody tr")).first
    assert wide.evaluate("one => one.scrollWidth > one.clientWidth")
    with focused(page, wide):
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.activeElement.scrollLeft > 0")


def test_the_overview_filters_families_states_and_columns(show, pages):
    page = show(pages["overview"])
    page.locator("summary").first.click()
    shown = page.locator("#matrix tbody tr:not([hidden]) th")
    assert set(shown.all_text_contents()) == set(MODELS)
    heads = page.locator("#matrix thead th:not([hidden])")
    leading = heads.count()
    page.get_by_label("every evaluation").check()
    assert heads.count() > leading
    page.get_by_label("every evaluation").uncheck()
    page.get_by_label("only models with a state of fixed size").check()
    assert set(shown.all_text_contents()) == {"retnet", "mamba"}
    page.get_by_label("only models with a state of fixed size").uncheck()
    page.locator("[name=family]").first.uncheck()
    family = page.locator("[name=family]").first.get_attribute("value")
    assert 0 < shown.count() < len(MODELS)
    assert family not in page.locator("#matrix tbody tr:not([hidden]) td:nth-child(2)").all_text_contents()
    page.locator("[name=comparison][value=large]").uncheck()
    page.get_by_label("every evaluation").check()
    assert "titans-mac" not in shown.all_text_contents()  # the other comparison has not measured it


def test_the_overview_sorts_the_better_first_and_sets_two_side_by_side(show, pages):
    page = show(pages["overview"])
    for at in range(2, page.locator("#matrix thead th").count()):
        head = page.locator("#matrix thead th").nth(at)
        if not head.is_visible():
            continue
        name, way = head.locator("button").text_content().strip(), head.get_attribute("data-way")
        head.locator("button").click()
        values = column(page, "#matrix", name)
        assert len(values) > 1 and values == sorted(values, reverse=way == "1"), name
    page.locator("#one").select_option("retnet")
    page.locator("#other").select_option("mamba")
    heads = page.locator("#pair thead th").all_text_contents()
    assert heads == ["ability", "comparison", "retnet", "mamba", "better"]
    assert all(
        text.startswith(("retnet", "mamba", "equal"))
        for text in page.locator("#pair td:last-child").all_text_contents()
    )
    assert page.locator("#matrix thead a").first.get_attribute("href").startswith("../large/report.html#numbers-")


@pytest.mark.skipif(find_spec("material") is None, reason='mkdocs-material is not installed (pip install -e ".[docs]")')
def test_the_documentation_is_searched_and_darkened_from_its_folder(show, tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for width in WIDTHS:
        for name in ("index.html", "titans.html", "results/overview/overview.html"):
            page = show(tmp_path / name, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    page = show(tmp_path / "index.html")
    page.get_by_role("textbox", name="Search").click()
    page.get_by_role("textbox", name="Search").press_sequentially("weight decay")
    page.locator(".md-search-result__item a").first.wait_for()
    assert page.locator(".md-search-result__item a").first.get_attribute("href")
    page.keyboard.press("Escape")
    page.locator("label[for=__palette_1]").click()
    assert page.locator("body").get_attribute("data-md-color-scheme") == "slate"
