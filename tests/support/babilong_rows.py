"""A small BABILong, and what stands in its rows: context, question, answer, and the facts that are told."""

from __future__ import annotations

import re

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.task import BABILong
from tasks.task import EvaluationBatch
from tasks.text.tokenizer import BYTES

SMALL = BABILong(length=256, test_lengths=(0, 256, 512), samples=12)
NAMES = "|".join((*TASKS["qa1"].world.actors, *TASKS["qa5"].world.actors))
VERBS = (
    "went to|journeyed to|travelled to|moved to|went back to|got|took|grabbed|picked up|"
    "left|dropped|discarded|put down|passed|gave|handed"
)
EVENT = re.compile(rf" (?:{NAMES}) (?:{VERBS}) the \w+(?: there| to (?:{NAMES}))?\.")
RELATION = re.compile(r" The \w+ is (?:north|south|east|west) of the \w+\.")


def rows(exam: EvaluationBatch) -> list[tuple[str, str, str]]:
    """Context, question and answer of every row."""
    words = SMALL.templates[exam.batch.where["question"]]
    prompts = [words.read(BYTES.decode(row[: exam.prompt])) for row in exam.batch.tokens.numpy()]
    return [(*prompt, BYTES.decode(SMALL.truth(exam, row))) for row, prompt in enumerate(prompts)]


def told(context: str, name: str) -> list[str]:
    """The facts that stand in a context, in order."""
    return [fact[1:] for fact in (RELATION if name == "qa4" else EVENT).findall(context)]
