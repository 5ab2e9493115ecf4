"""The templates of pages: all have the head, the styles and the sorting of tables from base.html."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markdown_it import MarkdownIt

FOLDER = Path(__file__).resolve().parents[1]


@cache
def template(name: str) -> Template:
    """The template of a path below `results/report`."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.policies["json.dumps_kwargs"] = {}  # facts in the order in which a page tells them
    made.filters |= {"markdown": markdown, "anchor": _anchor}
    return made.get_template(name)


def markdown(text: str) -> str:
    """Markdown as HTML; raw HTML in it is shown, not obeyed, but for underlines, small and low letters and line breaks."""
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    made = re.sub(r"&lt;(br|/?small|/?sub)&gt;", r"<\1>", made)
    return re.sub(r"&lt;u&gt;([^<>&]*)&lt;/u&gt;", r"<u>\1</u>", made)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
