"""A model trained on our simulator's stories answers the released test questions as it answers ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import baselines  # noqa: F401 - registers the models
import tasks
from models.language_model import Size, seeded
from tasks.harness.evaluate import evaluate
from tasks.harness.train import train
from tests.support.babi_stories import archive


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_model_scores_the_same_on_ours_and_on_the_released(monkeypatch) -> None:
    path = archive()
    if path is None:
        pytest.skip("the released bAbI data is not here; name it in TITANOMACHY_BABI")
    monkeypatch.setenv("TITANOMACHY_BABI", str(Path(os.path.abspath(path))))
    task = tasks.create(
        "babilong", questions=["qa1"], length=128, test_lengths=[0], samples=1000, tokenizer="bpe:2048",
        lessons="all", test_sources=["simulator", "$TITANOMACHY_BABI"],
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = seeded("gated-deltanet", Size(task.vocab, 64, 2, 4), 0)
        train(model, task, steps=800, batch_tokens=2048, lr=3e-3)
        model.eval()
        marks = evaluate(model, task)
    finally:
        torch.set_num_threads(threads)
    found = {m.where["stories"]: m for m in marks if m.metric == "choice_accuracy"}
    ours, released = found["simulator"], found["released"]
    assert ours.count == 1000 and 150 < released.count < 250  # a fifth of the 1,000 is of no story that was trained
    floor = {m.where["stories"]: m.value for m in task.floors()["floor: majority answer to the question"]}
    assert ours.value > floor["simulator"] + 0.2
    share = (ours.value + released.value) / 2
    spread = (share * (1 - share) * (1 / ours.count + 1 / released.count)) ** 0.5
    assert abs(ours.value - released.value) < 3 * spread + 1e-9, (ours, released)
