"""The needle after language modelling: text is trained, needles are only asked."""

from __future__ import annotations

import pytest
import torch

import tasks
from tasks.task import IGNORE

SETTINGS = {"length": 128, "template": "compact", "variants": ["s-niah-1"], "test_lengths": [128], "samples": 2}


@pytest.fixture(scope="module")
def task():
    return tasks.create("zero-shot-needle", **SETTINGS, depths=[0.0, 1.0])


def test_training_is_running_text(task):
    text = tasks.create("language-modelling", length=128, test_lengths=[128])
    for step in (0, 5):
        ours, theirs = task.training(1, step, 0.5, 512), text.training(1, step, 0.5, 512)
        assert torch.equal(ours.tokens, theirs.tokens) and torch.equal(ours.targets, theirs.targets)
    assert (ours.targets != IGNORE).all()


def test_the_test_is_the_needles_and_validation_is_text(task):
    needle = tasks.create("needle", **SETTINGS, depths=[0.0, 1.0])
    ours, theirs = list(task.exams("test")), list(needle.exams("test"))
    assert len(ours) == len(theirs) >= 2
    assert all(torch.equal(a.batch.tokens, b.batch.tokens) for a, b in zip(ours, theirs, strict=True))
    marks = [m for exam in ours for m in task.mark(exam, task.oracle(exam))]
    assert {m.metric for m in marks} >= {"compact_exact_match"} and all(m.value == 1 for m in marks)
    assert all(task.evidence(exam, 0) for exam in ours)
    assert all(exam.prompt is None for exam in task.exams("validation"))
    assert task.protocol == "zero-shot" and task.floors().keys() == needle.floors().keys()
    assert task.data_hash() != needle.data_hash()
