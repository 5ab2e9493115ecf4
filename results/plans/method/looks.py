"""The looks at a claim's seeds: how many there are at most, and how the 5 % of error are spent over the looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from results.plans.toml_reader import LARGEST, PlanError, TableReader
from schema import shortened, suggestion

POCOCK, OBRIEN_FLEMING = "pocock", "obrien-fleming"
SPENDING = (POCOCK, OBRIEN_FLEMING)


@dataclass(frozen=True)
class Schedule:
    """The seeds of each look, each holding those of the look before, and how looks are paid for."""

    looks: tuple[tuple[int, ...], ...]
    spending: str

    @property
    def fractions(self) -> tuple[float, ...]:
        """The share of the most seeds that each look has."""
        return tuple(len(seeds) / len(self.looks[-1]) for seeds in self.looks)


@dataclass(frozen=True)
class Looks:
    """The table `looks` of a plan: at most so many seeds for a claim that fewer leave open, and how looks are paid for."""

    most_seeds: int
    spending: str = POCOCK

    def after(self, seeds: Sequence[int]) -> Schedule:
        """The plan's seeds at the first look, then as many more at each, counted on from the largest, up to the most.

        >>> Looks(12).after([0, 1, 2, 3, 4]).looks[1:]
        ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
        """
        first = max(seeds) + 1
        every = (*seeds, *range(first, first + self.most_seeds - len(seeds)))
        counts = [*range(len(seeds), self.most_seeds, len(seeds)), max(self.most_seeds, len(seeds))]
        return Schedule(tuple(every[:count] for count in counts), self.spending)


def read(table: dict[str, Any], reader: TableReader) -> Looks | None:
    """The table `looks` of a plan; None without one. Raises PlanError."""
    if "looks" not in table:
        return None
    where, inner = "[looks] ", reader.take(table, "looks", dict)
    reader.refuse_unknown(inner, ("most_seeds", "spending"), where)
    looks = Looks(
        reader.take(inner, "most_seeds", int, where=where),
        reader.take(inner, "spending", str, POCOCK, where),
    )
    if looks.spending not in SPENDING:
        word = f"{shortened(looks.spending)}{suggestion(looks.spending, SPENDING)}"
        raise PlanError(f"{reader.source}: {where}there is no spending {word}; known: {', '.join(SPENDING)}.")
    return looks


def wrong(looks: Looks | None, seeds: Sequence[int]) -> str:
    """What is wrong with the looks of a plan with these seeds; "" where nothing is."""
    if looks is None or not seeds:
        return ""
    if looks.most_seeds <= len(seeds):
        return f"looks: most_seeds is {looks.most_seeds}, and there are {len(seeds)} seeds already; write more, or remove it"
    if max(seeds) + looks.most_seeds - len(seeds) > LARGEST:
        return (
            "looks: the further seeds follow the largest of seeds and would have more than 64 bits; write smaller seeds"
        )
    return ""
