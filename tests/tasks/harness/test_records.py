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

PINNED = {  # version of the evaluation and SHA-256 of the set: who draws something else raises the version
    "needle": (1, "fcbf135319c47e3a6b9fa2b54389b98e531df989109117b113705217000c89b5"),
    "babilong": (2, "8e4feeaa2bca47074e987ddd99eca42f9f3aa83a392ce190419fd5c7a9d49ac9"),
    "mqar": (2, "5565b9cc0c0058eb1004003989f99bf7b5c5dd3981308eec832a4bf793f443d8"),
    "state-tracking": (1, "91fd165c883a8fd45b784e4b37dd9e8f6b6fefaea9ec929cc52cebd608892f95"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_set_is_never_changed_under_its_version(name):
    task = tasks.create(name, **SMALL[name])
    digest = hashlib.sha256("".join(json.dumps(record) + "\n" for record in records(task)).encode()).hexdigest()
    assert (task.exam_version, digest) == PINNED[name]


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
