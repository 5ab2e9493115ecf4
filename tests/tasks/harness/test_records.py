"""A task's evaluation as records: every question once, its answer the one that is scored, text readable."""

from __future__ import annotations

import hashlib
import json

import pytest

import tasks
from tasks.harness.records import OWN, is_generated, records
from tasks.task import IGNORE

SMALL = {
    "needle": {"variants": ["s-niah-1"], "length": 64, "test_lengths": [64], "samples": 2},
    "babilong": {"questions": ["qa1"], "length": 128, "test_lengths": [0, 128], "samples": 3},
    "mqar": {"pairs": [2], "length": 16, "test_lengths": [16], "vocab": 16, "samples": 4},
    "state-tracking": {"samples": 4},
}


@pytest.mark.parametrize("name", SMALL)
def test_every_question_is_a_record_and_its_answer_is_the_one_that_is_scored(name):
    task = tasks.create(name, **SMALL[name])
    found = list(records(task))
    rows = [(exam, row) for exam in task.exams("test") for row in range(len(exam.batch.tokens))]
    assert [record["id"] for record in found] == list(range(len(rows)))
    for record, (exam, row) in zip(found, rows, strict=True):
        tokens, targets = exam.batch.tokens[row].tolist(), exam.batch.targets[row].tolist()
        assert {key: value for key, value in record.items() if key not in OWN} == exam.batch.where
        if exam.prompt is None:
            text, answer = tokens, [targets[place - 1] for place in record["places"]]
            assert record["answer"] == task.spell(answer) and record["text"] == task.spell(tokens)
        else:
            text, answer = tokens[: exam.prompt], list(record["answer"].encode())
            assert record["text"].encode() == bytes(text)
            assert [target for target in targets if target not in (IGNORE, exam.stop)] == answer
            assert "choices" not in record or record["answer"] in record["choices"]
        told = " ".join(map(str, [*text, *answer]))
        assert record["tokens_sha256"] == hashlib.sha256(told.encode()).hexdigest()
    assert list(records(task)) == found and json.dumps(found)


def test_running_text_is_no_generated_set():
    assert not is_generated(tasks.create("language-modelling", length=64, test_lengths=[64], test_bytes=4096))
    assert is_generated(tasks.create("mqar", **SMALL["mqar"]))
