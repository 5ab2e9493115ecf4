"""The families of a report's models: titles, places in history, and the one look that a model has in every figure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain, count
from typing import Any, NamedTuple
from zlib import crc32

from results.rows.row import FLOOR_FAMILY

YOURS = "yours"  # the family of a user's own models, as rows carry it
LAST = 1_000_000  # of trivial baselines, which stand below every model
UNKNOWN = 10_000  # of families that are not in the list: behind those that are, in the order that their rows name
# OKLCH hues of families that nobody tells of, by that order; further ones walk on by the golden angle.
HUES = (255.0, 195.0, 145.0, 85.0, 300.0, 25.0, 350.0, 55.0)
BEYOND, GOLDEN_ANGLE = 225.0, 137.508
NEAR_HUE, MOST_HUES = 8.0, 20  # degrees within which two hues are one; families up to which there is one left
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p", "<", "h", ">", "d", "H", "8")
LOOKS = 40  # in a family: eight dashes by five shades


class Look(NamedTuple):
    """What tells a model from others: its family's hue and marker, and of the family's LOOKS dashes and shades a number."""

    hue: float = 0.0
    marker: str = MARKERS[0]
    number: int = 0


PLAIN = Look()


class ShownFamily(NamedTuple):
    """One family of models as a report shows it."""

    name: str  # as rows carry it
    title: str
    place: int
    hue: float
    marker: str = ""  # by place, if it says none
    looks: tuple[str, ...] = ()  # names whose place here is their look's number; append, never insert


class Families:
    """Looks a row's family up by name; only for a name that is not in the list does the row's own column tell the place."""

    def __init__(self, known: Iterable[ShownFamily] = ()) -> None:
        self.known = {family.name: family for family in known}

    def of(self, row: dict[str, Any]) -> ShownFamily:
        """The family of a row."""
        name, order = row["family"], row["family_order"]
        if name == FLOOR_FAMILY:
            return ShownFamily(name, name, LAST if self.known else order, 0.0)
        if name in self.known:
            return self.known[name]
        hue = HUES[order] if 0 <= order < len(HUES) else (BEYOND + GOLDEN_ANGLE * (order - len(HUES))) % 360
        place = UNKNOWN + order if self.known else order
        return ShownFamily(name, name.replace("_", " "), place, hue, MARKERS[order % len(MARKERS)])

    def apart(self, drawn: Iterable[ShownFamily]) -> dict[ShownFamily, ShownFamily]:
        """Each family of a drawing as it looks there: one that is not in the list gives way where its marker or hue is taken."""
        found = {family: family._replace(marker=_marker(family)) for family in drawn if family.name in self.known}
        taken = [family._replace(marker=_marker(family)) for family in self.known.values()]
        for family in sorted(set(drawn) - set(found), key=lambda one: (one.place, one.name)):
            markers, hues = {one.marker for one in taken}, [one.hue for one in taken]
            own = MARKERS.index(_marker(family))
            free = [marker for marker in (*MARKERS[own:], *MARKERS[:own]) if marker not in markers]
            hue = family.hue
            while len(hues) < MOST_HUES and any(abs((hue - other + 180) % 360 - 180) < NEAR_HUE for other in hues):
                hue = (hue + GOLDEN_ANGLE) % 360
            found[family] = family._replace(marker=free[0] if free else MARKERS[own], hue=hue)
            taken.append(found[family])
        return found


def _marker(family: ShownFamily) -> str:
    return family.marker or MARKERS[(family.place // 10 - 1) % len(MARKERS)]


def looks(family: ShownFamily, labels: Iterable[str]) -> dict[str, Look]:
    """The look of each label of a family: a function of family and label, whoever else is drawn.

    A label's number is its place among `family.looks`, or its hash. Where two that are not listed fall on one number, the
    later by name takes the next that is free: list one of them, and both are settled. Whom LOOKS numbers do not suffice
    has another marker.
    """
    own = MARKERS.index(_marker(family))
    found = dict(zip(family.looks, range(len(family.looks)), strict=True))
    taken = set(found.values())
    for label in sorted(set(labels) - set(found)):
        plain = label.removesuffix(" (default)")  # the same model beside variants of it
        first = found.get(plain, crc32(plain.encode()) % LOOKS)
        found[label] = first if plain in found else _free(first, taken)
        taken.add(found[label])
    return {
        label: Look(family.hue, MARKERS[(own + number // LOOKS) % len(MARKERS)], number % LOOKS)
        for label, number in found.items()
    }


def _free(number: int, taken: Collection[int]) -> int:
    """The first number from this one on, around LOOKS and then beyond, that is not taken."""
    round_about = ((number + step) % LOOKS for step in range(LOOKS))
    return next(one for one in chain(round_about, count(LOOKS)) if one not in taken)
