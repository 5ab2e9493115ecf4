"""The pages: what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schema.places import ROOT

PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    places = [place for place in LINK.findall(page.read_text(encoding="utf-8")) if not place.startswith("http")]
    assert [place for place in places if not (page.parent / place).exists()] == []


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in index] == []


def test_files_that_pages_name_are_there():
    """By their own name, since pages shorten paths; `mine.py` and the examples of a page are a reader's own."""
    there = {path.name for path in ROOT.rglob("*.py")} | {
        "mine.py",
        "file.py",
        "FILE.py",
        "my_hgrn2.py",
        "layer.py",
        "gates.py",
    }
    named = {
        (page.name, name) for page in PAGES for name in re.findall(r"(\w+\.py)\b", page.read_text(encoding="utf-8"))
    }
    assert sorted((page, name) for page, name in named if name not in there) == []
