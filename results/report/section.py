"""What a report says beside its numbers: its opening, and further text by whoever has something to say below a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Section:
    """A title and Markdown text (tables allowed), below the evaluation with that slug, or at the end of the report."""

    title: str
    text: str
    evaluation: str = ""


@dataclass(frozen=True)
class PageText:
    """What the page says beside its numbers."""

    title: str
    question: str = ""
    reference_model: str = "transformer"
    sections: tuple[Section, ...] = ()
    printed: Mapping[str, str] = field(default_factory=dict)  # what papers print, by task
    findings: tuple[Section, ...] = ()  # of the whole: verdicts on claims, orderings
    told: tuple[str, ...] = ()  # sentences of Markdown that the page opens with
    leading: str = ""  # the name of the figure that shows what they say
