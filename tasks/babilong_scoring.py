"""How BABILong answers are compared, and how far one comes without understanding."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.babi_world import ROOMS

TOUCHED = re.compile(
    r"(\w+) (?:got|took|grabbed|picked up|left|dropped|discarded|put down) the (\w+)(?: there)?\.",
)
MOVED = r"\b{actor} (?:went to|journeyed to|travelled to|moved to|went back to) the ({rooms})\."


def matches(output: str, target: str, question: str, labels: Sequence[str]) -> bool:
    """BABILong's comparison: the labels named in the answer's first sentence, but not in the question, are the target.

    Case is ignored; what follows the first ".", "<context>" or "<example>" is not read.
    """
    said = re.split(r"\.|<context>|<example>", output.lower(), maxsplit=1)[0]
    known = {label.lower() for label in labels}
    return {label for label in known if label in said and label not in question.lower()} == {target.lower()}


def last_mentioned(context: str, question: str, labels: Sequence[str]) -> str:
    """The label that the context names last; the first label if it names none."""
    return max(labels, key=context.rfind)


def last_touchers_room(context: str, question: str, labels: Sequence[str]) -> str:
    """For "Where is the X?": the last told room of the actor who took or dropped X last, or the last label named."""
    thing = re.fullmatch(r"Where is the (\w+)\?", question)[1]
    touchers = [actor for actor, touched in TOUCHED.findall(context) if touched == thing]
    rooms = re.findall(MOVED.format(actor=touchers[-1], rooms="|".join(ROOMS)), context) if touchers else []
    return rooms[-1] if rooms else last_mentioned(context, question, labels)


def last_unasked_label(context: str, question: str, labels: Sequence[str]) -> str:
    """The label that the context names last among those that the question does not name."""
    return last_mentioned(context, question, [label for label in labels if label not in question])
