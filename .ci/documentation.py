"""What mkdocs does for the site beyond the pages of docs/: committed results and linked code join it, where they lie.

A page may link to any file of the checkout, as pages of a repository do. What such a link names becomes a part of the site:
a Markdown page of results/ (with the figures that it shows), a module as a page of highlighted code. Nothing is copied into
docs/, and a committed row that is drawn anew changes the site with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
LINK = re.compile(
    r"(?P<comma>, )?(?P<label>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<place>[^()\s#]+)(?P<heading>#[^()\s]*)?\)"
)
LANGUAGES = {".py": "python", ".toml": "toml", ".c": "c", ".cpp": "cpp"}
INSIDE = (".png", ".svg", ".csv", ".tex")  # what a page of the site shows or hands out as it is
LIST = re.compile(r"^(?:[-*] |\d+\. )")
CODE = re.compile(r"(^```.*?^```|^(?: {4}|\t).*?$)", re.MULTILINE | re.DOTALL)
FRONT = "README.md"


def committed_pages() -> dict[str, Path]:
    """Every page of results/ by its place in the site: the index, the overview, a report for each committed comparison."""
    pages = [RESULTS / "README.md", RESULTS / "overview" / "overview.md", RESULTS / "published" / "README.md"]
    pages += sorted(RESULTS.glob("comparisons/*/*/reference/report.md"))
    return {path.relative_to(ROOT).as_posix(): path for path in pages}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation's entry of results becomes all of its pages."""
    papers, own = [], []
    for place in committed_pages():
        parts = PurePosixPath(place).parts
        if parts[1] == "comparisons":
            (papers if parts[2] == "papers" else own).append({parts[3]: place})
    results = [
        {"Comparisons": "results/README.md"},
        {"At a glance": "results/overview/overview.md"},
        {"Papers'": papers},
        {"Our own": own},
        {"Printed numbers": "results/published/README.md"},
    ]
    config.nav = [{"Results": results} if "Results" in entry else entry for entry in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages of results/, and whatever of the checkout a page links to."""
    pages = committed_pages()
    for place, path in pages.items():
        files.append(File.generated(config, place, abs_src_path=str(path)))
    sources = {file.src_uri: Path(file.abs_src_path) for file in files.documentation_pages()}
    for path in sources.values():
        for target in linked(path):
            place = place_of(target)
            if place in files.src_uris or not target.is_file() or not target.is_relative_to(ROOT):
                continue
            if target.suffix in INSIDE or _is_table(target):
                files.append(File.generated(config, place, abs_src_path=str(target)))
            elif target.suffix in LANGUAGES:
                files.append(File.generated(config, place, content=_code_page(target)))
    return files


def linked(page: Path) -> list[Path]:
    """The files of the checkout that a page links to, whether they are there or not; links to the web are left out."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    found = [link for whole in LINK.finditer(text) for link in (whole, *LINK.finditer(whole["label"]))]
    return [(page.parent / link["place"]).resolve() for link in found if "://" not in link["place"]]


def place_of(target: Path) -> str:
    """Where a file of the checkout lies in the site: pages of docs/ at its top, the rest as in the checkout."""
    if target.is_dir():
        target = next((page for page in (target / FRONT, target / "report.md") if page.is_file()), target)
    try:
        return target.relative_to(ROOT / "docs").as_posix()
    except ValueError:
        place = os.path.relpath(target, ROOT).replace(os.sep, "/")
    if target.suffix in LANGUAGES:
        return f"{place}.md"  # a page that shows it
    return f"{place}.txt" if _is_table(target) else place


def _is_table(path: Path) -> bool:
    """Whether a file is a report's table as Markdown, which is handed out as text and no page of its own."""
    return path.suffix == ".md" and path.parent.name == "tables"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the checkout become links of the site; a figure's form that is not committed is left out."""
    if page.file.src_uri == FRONT:
        page.meta["hide"] = ["navigation", "toc"]
    source = page.file.abs_src_path
    if source is None:  # a page of code has no links
        return markdown
    return _outside_code(_with_lists(markdown), lambda text: LINK.sub(lambda link: _moved(link, page, files), text))


def _moved(link: re.Match, page: Page, files: Files) -> str:
    place, heading = link["place"], link["heading"] or ""
    before = link["comma"] or ""
    label = LINK.sub(lambda inner: _moved(inner, page, files), link["label"])
    if "://" in place or place.startswith("mailto:"):
        return f"{before}{label}({place}{heading})"
    target = (Path(page.file.abs_src_path).parent / place).resolve()
    inside = place_of(target)
    if inside in files.src_uris:
        place = os.path.relpath(inside, PurePosixPath(page.file.src_uri).parent).replace(os.sep, "/")
    elif _is_drawn(target):
        return ""
    return (
        f"{before}{label}({place}{heading})"  # of a link that leads nowhere mkdocs says so, which ends a strict build
    )


def _is_drawn(target: Path) -> bool:
    """Whether a file is a form of a figure that git ignores: `bench.py report NAME --reference` draws it."""
    return target.suffix in (".pdf", ".svg") and target.with_suffix(".png").is_file() and RESULTS in target.parents


def _code_page(path: Path) -> str:
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    fence = "`" * (3 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f'# {name}\n\n{fence}{LANGUAGES[path.suffix]} linenums="1"\n{text.rstrip()}\n{fence}\n'


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts = CODE.split(markdown)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


def _with_lists(markdown: str) -> str:
    """An empty line before each list that follows a paragraph at once: GitHub needs none, Python-Markdown does."""
    found: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        before = found[-1] if found else ""
        fenced ^= line.startswith("```")
        if not fenced and LIST.match(line) and before.strip() and not LIST.match(before) and not before.startswith(" "):
            found.append("")
        found.append(line)
    return "\n".join(found) + "\n"
