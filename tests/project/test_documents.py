"""The pages: what they link to is there, and so are the files, functions and modules that they name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from schema.places import ROOT
from tests.support import table_of_speed
from tests.support.documents import PAGES, name_of

REPORTS = [
    ROOT / "results" / "overview" / "overview.md",
    *sorted((ROOT / "results" / "comparisons").glob("*/*/reference/report.md")),
]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
DRAWN = (".pdf", ".svg")  # forms of a figure that git ignores: the report draws them
READERS = {"mine.py", "file.py", "FILE.py", "my_hgrn2.py", "layer.py", "gates.py", "odd_one_out.py"}  # a reader's own
WINGS = ("models", "baselines", "tasks", "results", "runner", "schema")
DOTTED = re.compile(rf"`((?:{'|'.join(WINGS)})(?:\.[A-Za-z_]\w*)+)[`(]")
FUNCTION = re.compile(r"`([\w/.]*\w+\.py): ([\w.]+)`((?:, `[A-Za-z_][\w.]*`)*)")


def links(page: Path) -> list[tuple[str, str]]:
    """The places and headings that a page links to; addresses on the web are left out."""
    found = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return [(place, heading) for place, heading in found if "://" not in place and (place or heading)]


@cache
def headings(page: Path) -> set[str]:
    """The names under which a page's headings and anchors are linked to."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return set(re.findall(r'<a id="([^"]+)"></a>', text)) | {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles
    }


@pytest.mark.parametrize("page", [*PAGES, *REPORTS], ids=name_of)
def test_links_lead_somewhere(page: Path):
    lost = []
    for place, heading in links(page):
        target = (page.parent / place).resolve() if place else page
        is_there = target.exists() or (target.suffix in DRAWN and target.with_suffix(".png").is_file())
        if not is_there or (heading and heading not in headings(target)):
            lost.append(f"{place}#{heading}" if heading else place)
    assert lost == []


def test_every_page_is_in_the_index_and_in_the_site():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "README.md"]
    assert [name for name in pages if f"]({name})" not in index or f": {name}\n" not in site] == []


def files_there() -> set[str]:
    return {path.name for path in ROOT.rglob("*.py")} | READERS


def test_files_that_pages_name_are_there():
    """By their own name, since pages shorten paths; `mine.py` and the examples of a page are a reader's own."""
    there = files_there()
    named = {
        (page.name, name) for page in PAGES for name in re.findall(r"(\w+\.py)\b", page.read_text(encoding="utf-8"))
    }
    assert sorted((page, name) for page, name in named if name not in there) == []


def defined(path: Path) -> set[str]:
    """The names that a module gives: functions, classes with their methods and attributes, constants, what it imports."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = _names(node)
        found |= names
        if isinstance(node, ast.ClassDef):
            found |= {name for inner in node.body for name in _names(inner)}
            found |= {f"{node.name}.{name}" for inner in node.body for name in _names(inner)}
            found |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
    return found


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(one.asname or one.name).split(".")[0] for one in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {one.id for target in targets if target is not None for one in ast.walk(target) if isinstance(one, ast.Name)}


def lost_functions(text: str) -> list[str]:
    """What a page says stands in a file (`file.py: name`, `another`) and does not."""
    lost = []
    for place, name, more in FUNCTION.findall(text):
        files = [path for path in ROOT.rglob(place.rpartition("/")[2]) if path.as_posix().endswith(f"/{place}")]
        files = [path for path in files if ".venv" not in path.parts and ".cache" not in path.parts]
        given = {one for path in files for one in defined(path)}
        others = [one for one in re.findall(r"`([\w.]+)`", more) if not one.endswith(".py")]
        lost += [f"{place}: {one}" for one in (name, *others) if one not in given]
    return lost


def lost_modules(text: str) -> list[str]:
    """The dotted names of this project that a page gives and that are no module, nor in one."""
    lost = []
    for dotted in DOTTED.findall(text):
        parts = dotted.split(".")
        ends = [end for end in range(len(parts), 0, -1) if (path := _module(parts[:end])) is not None]
        rest = parts[ends[0] :] if ends else parts
        path = _module(parts[: ends[0]]) if ends else None
        if path is None or (rest and ".".join(rest) not in defined(path) and rest[0] not in defined(path)):
            lost.append(dotted)
    return lost


def _module(parts: list[str]) -> Path | None:
    path = ROOT.joinpath(*parts)
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_functions_and_modules_that_pages_name_are_there(page: Path):
    text = page.read_text(encoding="utf-8")
    assert lost_functions(text) + lost_modules(text) == []


def test_a_name_that_is_not_there_is_found():
    assert lost_functions("`mac.py: TitansMAC.backward`, `_attent`") == [
        "mac.py: TitansMAC.backward",
        "mac.py: _attent",
    ]
    assert lost_functions("`mac.py: TitansMAC.forward`, `_attend`") == []
    assert lost_modules("`models.language_model.built` and `tasks.tusk.Task`, `tasks.task.Task`") == [
        "models.language_model.built",
        "tasks.tusk.Task",
    ]


def test_the_table_of_speed_is_that_of_the_committed_rows():
    """`python -m tests.support.table_of_speed --write` draws it anew."""
    assert table_of_speed.on_page(table_of_speed.PAGE.read_text(encoding="utf-8")) == table_of_speed.table()
