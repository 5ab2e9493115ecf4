"""Which of the properties that failed is probably the cause, and which may only follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

SPLITS = {
    "split: single tokens",
    "split: pieces of 37",
    "split: around every period",
    "split: random places",
    "split: beyond 512 tokens",
}
PIECES = SPLITS | {
    "short texts", "state carries gradient", "empty piece", "state of another dtype", "eval mode", "state untouched",
    "reference",
}  # fmt: skip


class Cause(NamedTuple):
    """What a failed property says of the model, and the properties that fail with it."""

    says: str
    brings: set[str]


EVERYTHING = {"everything else"}
LEAKS = PIECES | {"causality by gradient", "overfits one batch", "bfloat16", "rows independent"}

# The earlier stands here, the more it explains.
CAUSES: dict[str, Cause] = {
    "builds and trains": Cause("the model cannot be built or trained", EVERYTHING),
    "determinism": Cause("one text gives different logits: something is drawn, or kept in the module", EVERYTHING),
    "causality by perturbation": Cause("a token sees a later one", LEAKS),
    "rows independent": Cause("rows of a batch see one another", PIECES | {"state batch-first"}),
    "causality by gradient": Cause("a token's gradient reaches a later one, or none before it", LEAKS),
    "state batch-first": Cause(
        "the state is no tree of batch-first tensors and plain integers", PIECES | {"round trip"}
    ),
    "state untouched": Cause("a state passed in is written to", PIECES),
    "short texts": Cause("a text shorter than a chunk is computed otherwise", PIECES | {"state bounded"}),
    "split: single tokens": Cause("the state does not carry all that a later piece needs", PIECES | {"round trip"}),
    "split: around every period": Cause("the state is wrong at a chunk's, segment's or window's border", PIECES),
    "split: pieces of 37": Cause("the state does not carry all that a later piece needs", PIECES),
    "split: random places": Cause("the state does not carry all that a later piece needs", PIECES),
    "split: beyond 512 tokens": Cause("the state goes wrong in longer texts", {"state carries gradient"}),
    "reference": Cause("the fast form is not the reference recurrence", {"family"}),
    "initial statistics": Cause("the initialisation is not the mixer's own", {"loss at initialisation"}),
    "gradient to every parameter": Cause("a parameter does not learn", {"overfits one batch", "bfloat16"}),
}


def ordered(failed: Iterable[str]) -> tuple[list[str], set[str]]:
    """The failed properties, the probable cause first, and those among them that may only follow from it."""
    places = {name: place for place, name in enumerate(CAUSES)}
    names = sorted(failed, key=lambda name: places.get(name, len(places)))
    brings = CAUSES[names[0]].brings if names and names[0] in CAUSES else set()
    follow = {name for name in names[1:] if brings is EVERYTHING or name in brings}
    return [*names[:1], *(n for n in names[1:] if n not in follow), *(n for n in names[1:] if n in follow)], follow


def cause(name: str) -> str:
    """What a failed property says of the model, in a few words."""
    return CAUSES[name].says if name in CAUSES else "this property alone"
