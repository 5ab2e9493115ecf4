"""Recall can be learned: a small DeltaNet gets above what guessing and position allow."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401 - registers the models
import tasks
from models.language_model import Size, seeded
from tasks.harness.evaluate import evaluate
from tasks.harness.train import train


@pytest.mark.slow
def test_a_small_deltanet_learns_mqar() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = tasks.create("mqar", pairs=(4, 8), length=64, test_lengths=(64, 128), samples=64)
        model = seeded("deltanet", Size(task.vocab, 64, 2, 4), 0)
        train(model, task, steps=300, batch_tokens=2048, lr=4e-3)
        model.eval()
        found = {
            (m.where["pairs"], m.where["length"]): m.value for m in evaluate(model, task) if m.metric == "accuracy"
        }
    finally:
        torch.set_num_threads(threads)
    floor = {(m.where["pairs"], m.where["length"]): m.value for m in task.floors()["floor: any value of the text"]}
    assert set(found) == {(pairs, length) for pairs in (4, 8) for length in (64, 128)}
    assert all(found[key] > 0.6 > 2 * floor[key] for key in found), found
