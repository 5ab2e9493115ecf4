"""The documentation as a site: it builds without a warning, leads nowhere that is not there, and fetches nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

from schema.places import ROOT

needs_mkdocs = pytest.mark.skipif(
    find_spec("material") is None, reason='mkdocs-material is not installed (pip install -e ".[docs]")'
)
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "image": "href"}


class Page(HTMLParser):
    """What a page fetches to be shown, where its links lead, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetches: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in FETCHED and given.get("rel") not in ("canonical", "next", "prev") and given.get(FETCHED[tag]):
            self.fetches.append(given[FETCHED[tag]])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.places |= {value for value in (given.get("id"), given.get("name")) if value}


def build(root: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    """Every page of the site by its file."""
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT, out)
    assert built.returncode == 0 and "WARNING" not in built.stdout + built.stderr, built.stdout + built.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in out.rglob("*.html")}


@needs_mkdocs
def test_nothing_is_fetched_from_elsewhere(site):
    assert [one for page in site.values() for one in page.fetches if re.match(r"(https?:)?//", one)] == []


@needs_mkdocs
def test_every_link_and_figure_leads_somewhere(site):
    lost = set()
    for path, page in site.items():
        if path.name == "404.html":  # its addresses are of a server's root
            continue
        for link in (*page.links, *page.fetches):
            if re.match(r"(https?|mailto|data|javascript):", link):
                continue
            place, _, heading = unquote(unescape(link)).partition("#")
            target = (path.parent / place).resolve() if place else path
            target = target / "index.html" if target.is_dir() else target
            known = site[target].places if target in site else None
            if not target.is_file() or (heading and known is not None and heading not in known):
                lost.add(f"{path.name}: {link}")
    assert sorted(lost) == []


@needs_mkdocs
def test_committed_results_and_linked_code_are_pages(site):
    out = next(path for path in site if path.name == "404.html").parent
    reports = [path.relative_to(ROOT) for path in ROOT.glob("results/comparisons/*/*/reference/report.md")]
    pages = [*reports, Path("results/overview/overview.md"), Path("tasks/task.py.html")]
    assert reports and [page for page in pages if not (out / page.with_suffix(".html")).is_file()] == []
    assert (out / "results/overview/figures/matrix.png").read_bytes() == (
        ROOT / "results/overview/figures/matrix.png"
    ).read_bytes()


@needs_mkdocs
def test_a_link_to_nowhere_ends_the_build(tmp_path):
    for name in ("mkdocs.yml", ".ci", "docs", "results/README.md", "results/overview", "results/published"):
        whole, copy = ROOT / name, tmp_path / name
        copy.parent.mkdir(exist_ok=True, parents=True)
        shutil.copytree(whole, copy) if whole.is_dir() else shutil.copy(whole, copy)
    with (tmp_path / "docs" / "draw.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](../models/nowhere.py)\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0 and "nowhere.py" in built.stderr
