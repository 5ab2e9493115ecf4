"""How BABILong answers are compared, and how far one comes without understanding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tasks.babilong.babi.story import Item
from tasks.babilong.babi.world import ROOMS
from tasks.babilong.tokens import END

DISAGREEMENT = "scorer_disagreement"
TOUCHED = re.compile(
    r"(\w+) (?:got|took|grabbed|picked up|left|dropped|discarded|put down) the (\w+)(?: there)?\.",
)
MOVED = r"\b{actor} (?:went to|journeyed to|travelled to|moved to|went back to) the ({rooms})\."


def matches(output: str, target: str, question: str, labels: Sequence[str]) -> bool:
    """BABILong's comparison: the labels named in the answer's first sentence, but not in the question, are the target.

    Case is ignored; what follows the first ".", "<context>" or "<example>" is not read. A list (`apple,milk`) is right
    where exactly its things are named, in any order. Labels are looked for as parts of words, with the consequences of
    the original: a right "none" is wrong, as it holds "one" too; "I do not know" says no; `s, e` is not `s,e`.
    """
    said = re.split(r"\.|<context>|<example>", output.lower(), maxsplit=1)[0]
    known = {label.lower() for label in labels}
    named = {label for label in known if label in said and label not in question.lower()}
    wanted = target.lower()
    return named == (set(wanted.split(",")) if "," in wanted and len(wanted) > 3 else {wanted})


def generated(
    said: Sequence[str], targets: Sequence[str], questions: Sequence[str], labels: Sequence[str], lead: str
) -> dict[str, list[bool]]:
    """Which generated answers are right by BABILong's comparison and to the letter, and on which the two differ, by metric.

    `lead` is what stands before an answer's first letter and is not compared.
    """
    rows = list(zip(said, targets, questions, strict=True))
    official = [matches(text, target, question, labels) for text, target, question in rows]
    exact = [text.split(END)[0].removeprefix(lead) == target for text, target, _ in rows]
    differ = [one != other for one, other in zip(official, exact, strict=True)]
    return {"generated_accuracy": official, "exact_accuracy": exact, DISAGREEMENT: differ}


def held(said: Sequence[str], targets: Sequence[str]) -> list[bool]:
    """Which answers hold their target anywhere, whatever its case: lm-evaluation-harness's comparison."""
    return [target.lower() in text.lower() for text, target in zip(said, targets, strict=True)]


def same(target: str, choice: str) -> bool:
    """Whether two answers of the closed set agree; the things of a list (`apple,milk`, but not the path `s,e`) in any order."""
    if "," not in target or len(target) <= 3:
        return target == choice
    return sorted(target.split(",")) == sorted(choice.split(","))


def in_order(facts: Sequence[str], context: str) -> bool:
    """Whether a context holds these facts one after another."""
    place = 0
    for fact in facts:
        place = context.find(" " + fact, place) + 1
        if not place:
            return False
        place += len(fact)
    return True


def supporting(items: Iterable[Item], context: str, question: str, answer: str) -> tuple[str, ...]:
    """The supporting facts of the item with this question and answer whose facts the context holds; none without one."""
    for item in items:
        if (item.question.strip(), item.answer) == (question, answer) and in_order(item.facts, context):
            return tuple(dict.fromkeys(item.facts[index] for index in sorted(item.supports)))
    return ()


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


def commonest_label(context: str, question: str, labels: Sequence[str]) -> str:
    """The label that the context names most often; of equally common ones the one named last."""
    return max(labels, key=lambda label: (context.count(label), context.rfind(label)))
