"""Who is evaluated without being a model: trivial baselines that guess, shortcut heuristics, references that do what is asked.

Tasks say which is which by the beginning of a name (`tasks/task.py`). Better than the best of trivial baselines and shortcut
heuristics is what the mark in tables means; references are only shown.
"""

from __future__ import annotations

FLOOR, SHORTCUT, REFERENCE = "floor", "shortcut", "reference"
KINDS = (FLOOR, SHORTCUT, REFERENCE)
NAMED = {FLOOR: "trivial baseline", SHORTCUT: "shortcut heuristic", REFERENCE: "reference"}  # as captions call them
_BEGINNINGS = {"floor: ": FLOOR, "cheat: ": SHORTCUT, "reference: ": REFERENCE}
_RENAMED = {  # rows measured before references were told from shortcut heuristics
    "cheat: copy the only number": "reference: copy the only number",
    "cheat: copy every number": "reference: copy every number",
    "cheat: first value of the key": "reference: first value of the key",
}


def label(name: str) -> str:
    """What a table calls a row's reader: shortcut heuristics and references say what they are, trivial baselines need not."""
    return _RENAMED.get(name, name).removeprefix("floor: ")


def kind(label: str) -> str:
    """One of KINDS."""
    return next((kind for beginning, kind in _BEGINNINGS.items() if label.startswith(beginning)), FLOOR)


def counted(kinds: set[str]) -> str:
    """What a model must beat, in words: the best trivial baseline and the best shortcut heuristic, or the one that there is."""
    known = [kind for kind in (FLOOR, SHORTCUT) if kind in kinds] or [FLOOR]
    return " and ".join(f"the best {NAMED[kind]}" for kind in known)
