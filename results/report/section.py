"""Further text of a report, written by whoever has something to say below a table: a fairness card, a finding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A title and Markdown text (tables allowed), below the evaluation with that slug, or at the end of the report."""

    title: str
    text: str
    evaluation: str = ""
