"""No training batch depends on what a task names in `exam_settings`: a trained model is examined under others as it is."""

from __future__ import annotations

import inspect

import pytest
import torch

import tasks

# By task: settings that make it small, and another value for each of its evaluation settings.
OTHERS = {
    "needle": (
        {"template": "compact", "length": 128},
        {"test_lengths": (64, 512), "depths": (0.5,), "samples": 3},
    ),
    "babilong": (
        {"questions": ("qa1", "qa2"), "length": 256},
        {"test_lengths": (0, 1024), "samples": 7, "long_samples": 2, "test_sources": ("simulator",)},
    ),
    "language-modelling": (
        {"length": 64},
        {"test_lengths": (128, 512), "test_bytes": 1024, "validation_bytes": 512},
    ),
    "zero-shot-needle": (
        {"length": 64, "variants": ("s-niah-1",), "template": "compact"},
        {"validation_bytes": 512, "test_lengths": (128,), "depths": (0.5,), "samples": 3, "values": "numbers"},
    ),
    "few-shot-babilong": (
        {"length": 160},
        {"validation_bytes": 512, "questions": ("qa2",), "test_lengths": (900,), "samples": 3, "long_samples": 2},
    ),
    "mqar": ({}, {"test_pairs": (2, 12), "test_lengths": (64, 256), "samples": 5}),
    "variable-tracking": ({}, {"test_hops": (3,), "test_lengths": (64,), "samples": 5}),
    "common-words": ({}, {"test_rare": (12,), "samples": 5}),
    "frequent-words": ({}, {"test_lengths": (72,), "samples": 5}),
    "phone-book": ({}, {"test_entries": (12,), "samples": 5}),
    "overflow": ({}, {"test_facts": (12,), "ages": (2,), "samples": 5}),
    "flow": ({}, {"test_spans": (3,), "samples": 5}),
    "nonlinear-recall": ({}, {"test_sides": (6,), "samples": 5}),
    "forgetting": ({}, {"test_facts": (12,), "test_distances": (8, 128), "samples": 5}),
}
SYMBOLS = {"test_lengths": (64, 256), "samples": 5}


def drawn(task) -> list[torch.Tensor]:
    batches = [task.training(1, step, step / 40, 1024) for step in (0, 1, 7, 20, 39)]
    return [part for batch in batches for part in (batch.tokens, batch.targets)]


@pytest.mark.parametrize("name", [name for name in tasks.names() if tasks.classes()[name].exam_settings])
def test_training_does_not_depend_on_exam_settings(name):
    own, others = OTHERS.get(name, ({}, SYMBOLS))
    named = set(tasks.classes()[name].exam_settings)
    assert set(others) <= named <= set(inspect.signature(tasks.classes()[name]).parameters)
    assert others, "give another value to exam settings of this task here"
    task, base = tasks.create(name, **own), drawn(tasks.create(name, **own))
    for setting, value in others.items():
        other = tasks.create(name, **own, **{setting: value})
        assert (other.vocab, other.data_hash()) == (task.vocab, task.data_hash())
        assert all(torch.equal(a, b) for a, b in zip(base, drawn(other), strict=True)), setting


def test_other_settings_do_change_the_batches():
    one, other = (tasks.create("needle", template="compact", length=length) for length in (128, 256))
    pairs = zip(drawn(one), drawn(other), strict=True)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
