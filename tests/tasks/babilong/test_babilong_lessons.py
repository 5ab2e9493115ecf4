"""BABILong's training on every question of a story, where bAbI's files have it."""

from __future__ import annotations

import re

import pytest
import torch

from tasks.babilong.task import BABILong
from tasks.task import IGNORE
from tasks.text.tokenizer import BYTES

MOVE = re.compile(r" (\w+) (?:went|journeyed|travelled|moved|went back) (?:back )?to the (\w+)\.")


def asked(tokens: torch.Tensor, targets: torch.Tensor) -> list[tuple[str, str]]:
    """What stands before each asked answer of a row, and the answer."""
    found, place = [], 0
    while place < len(targets):
        if targets[place] == IGNORE:
            place += 1
            continue
        end = place
        while end < len(targets) and targets[end] != IGNORE:
            end += 1
        found.append((BYTES.decode(tokens[: place + 1].numpy()), BYTES.decode(targets[place:end].numpy())))
        place = end
    return found


def test_every_question_is_answered_by_what_stands_before_it() -> None:
    task = BABILong(questions=("qa1",), length=768, lessons="all")
    counts = []
    for step in range(12):
        batch = task.training(0, step, 1.0, 8192)
        for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
            lessons = asked(tokens, targets)
            counts.append(len(lessons))
            for before, answer in lessons:
                person = re.search(r"\nWhere is (\w+)\? $", before)[1]
                rooms = [room for name, room in MOVE.findall(before) if name == person]
                assert answer == rooms[-1] + "\n"
    assert max(counts) == 5 and min(counts) == 1


def test_a_row_is_as_long_and_ends_as_with_the_last_question_alone() -> None:
    every, last = (BABILong(questions=("qa1",), length=512, lessons=lessons) for lessons in ("all", "last"))
    for step in range(5):
        ours, alone = every.training(0, step, 1.0, 2048), last.training(0, step, 1.0, 2048)
        assert ours.tokens.shape == alone.tokens.shape
        rows = [[asked(*row) for row in zip(batch.tokens, batch.targets, strict=True)] for batch in (ours, alone)]
        assert all(len(lessons) == 1 for lessons in rows[1])
        ends = [[(len(ls[-1][0]), ls[-1][0].rsplit("\n", 1)[1], ls[-1][1]) for ls in each] for each in rows]
        assert ends[0] == ends[1]


def test_exams_ask_the_last_question_alone() -> None:
    exams = [list(BABILong(("qa1",), 256, samples=4, lessons=lessons).exams("test")) for lessons in ("all", "last")]
    for one, other in zip(*exams, strict=True):
        assert torch.equal(one.batch.tokens, other.batch.tokens) and torch.equal(one.batch.targets, other.batch.targets)


def test_only_the_compact_template_asks_between_facts() -> None:
    with pytest.raises(ValueError, match="only template='compact' can"):
        BABILong(("qa1",), 1024, template="instructed", lessons="all")
