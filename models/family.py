"""A family of models: one folder, which says in its `__init__.py` what it is called and where it stands in history."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What a family's folder says of itself: `FAMILY = Family(__name__, "first generation", place=30, hue=195.0)`.

    `name` is the folder's, of which a dotted module name is taken for its last part; it is what rows carry. Tables and
    figures are ordered by `place`, in steps of 10, so that there is room between. `hue` is the OKLCH hue of its colours, in
    degrees, `marker` matplotlib's of its points; by `place`, if it says none. `looks` names models in the order in which
    they were given their dashes and shades: append, never insert. A model that is not named has those that its name gives.
    """

    name: str
    title: str
    place: int
    hue: float
    marker: str = ""
    looks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.rpartition(".")[2])


YOURS = Family("yours", "yours", place=900, hue=350.0, marker="8")  # a user's own file
# external implementations in side-by-side benchmarks
OTHERS = Family("other_people's_code", "other people's code", place=910, hue=55.0, marker="H")
