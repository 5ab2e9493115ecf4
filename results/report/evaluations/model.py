"""A line of a table or figure: a model under one setting, or a trivial baseline."""

from __future__ import annotations

import re
from dataclasses import dataclass

from results.report.families import PLAIN, Look
from results.rows import readers
from results.rows.committed import SIGN
from results.rows.row import FLOOR_FAMILY


@dataclass(frozen=True)
class Model:
    """A line of a table: a model under one setting, or a trivial baseline."""

    label: str
    name: str
    family: str
    order: int
    look: Look = PLAIN  # the same in every figure of the project
    group: str = ""  # the family's title
    parameters: int | None = None
    state_bytes: int | None = None
    committed: bool = False  # measured elsewhere: taken from the committed rows

    @property
    def title(self) -> str:
        """The label as tables and legends show it."""
        return f"{self.label} {SIGN}" if self.committed else self.label

    @property
    def is_floor(self) -> bool:
        return self.family == FLOOR_FAMILY

    @property
    def reader(self) -> str | None:
        """Of trivial baselines, which of `readers.KINDS`: a model must beat all but the references, which are only shown."""
        return readers.kind(self.label) if self.is_floor else None

    @property
    def rank(self) -> tuple[int, str, tuple[tuple[bool, int, str], ...]]:
        """Its place in tables and legends: families in order, then by name, numbers in it by their size ("4" before "16")."""
        parts = re.findall(r"\d+|\D+", self.label)
        return (
            self.order,
            self.family,
            tuple((False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts),
        )
