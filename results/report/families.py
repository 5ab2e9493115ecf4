"""The families of a report's models: their titles, places in history and hues, told by whoever knows the models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from results.rows.row import FLOOR_FAMILY

LAST = 1_000_000  # of floors, which stand below every model
UNKNOWN = 10_000  # of families that are not in the list: behind those that are, in the order that their rows name
# OKLCH hues of families that nobody tells of, by that order; further ones walk on by the golden angle.
HUES = (255.0, 195.0, 145.0, 85.0, 300.0, 25.0, 350.0, 55.0)
BEYOND, GOLDEN_ANGLE = 225.0, 137.508


class Family(NamedTuple):
    """One family of models as a report shows it."""

    name: str  # as rows carry it
    title: str
    place: int
    hue: float


class Families:
    """Looks a row's family up by name; only for a name that is not in the list does the row's own column tell the place."""

    def __init__(self, known: Iterable[Family] = ()) -> None:
        self.known = {family.name: family for family in known}

    def of(self, row: dict[str, Any]) -> Family:
        """The family of a row."""
        name, order = row["family"], row["family_order"]
        if name == FLOOR_FAMILY:
            return Family(name, name, LAST if self.known else order, 0.0)
        if name in self.known:
            return self.known[name]
        hue = HUES[order] if 0 <= order < len(HUES) else (BEYOND + GOLDEN_ANGLE * (order - len(HUES))) % 360
        place = UNKNOWN + order if self.known else order
        return Family(name, name.replace("_", " "), place, hue)
