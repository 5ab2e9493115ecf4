"""Memory of an evaluation does not grow with the text, beyond the text itself and one mark for each of its places."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch

import baselines  # noqa: F401 - registers the models
import tasks
from models.language_model import Size, seeded
from tasks.harness import peak_memory
from tasks.harness.evaluate import answer
from tasks.task import IGNORE, Batch, EvaluationBatch


def peak(model: torch.nn.Module, length: int) -> int:
    """Bytes held at most while a text of so many tokens is read for one question at its end."""
    tokens = torch.zeros(1, length, dtype=torch.long)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, -1] = 1
    peak_memory.reset_peak("cpu")
    with torch.no_grad():
        answer(model, EvaluationBatch(Batch(tokens, targets, {}), prompt=length))
    return peak_memory.peak("cpu")


def test_reading_eight_times_as_much_takes_hardly_more_memory() -> None:
    model = seeded("gated-deltanet", Size(vocab=2048, width=16, depth=1, heads=2), 0)
    short = peak(model, 8 * 1024)
    assert peak(model, 64 * 1024) < short + 60 * 2**20


LONG = {
    "needle": {"variants": ["s-niah-1", "mq-niah"], "length": 128, "test_lengths": [40_000], "depths": [0.5]},
    "babilong": {"questions": ["qa1", "qa2"], "length": 128, "test_lengths": [40_000]},
}


@pytest.mark.parametrize("name", LONG)
def test_no_more_texts_are_held_than_those_of_one_exam_and_the_next(name, monkeypatch) -> None:
    task = tasks.create(name, **LONG[name], samples=3)
    written = []
    writer, how = (task.template, "draw") if name == "needle" else (task._writer, "write")
    write = getattr(writer, how)
    monkeypatch.setattr(writer, how, lambda *asked: written.append(1) or write(*asked))
    exams = task.exams("test")
    assert len(next(exams).batch.tokens) == len(written) == 1
    exams.close()
    seen: list[weakref.ref] = []
    set_exams = task.exams

    def watched(split: str) -> Iterator[EvaluationBatch]:
        for exam in set_exams(split):
            seen.append(weakref.ref(exam.batch.tokens))
            assert sum(text() is not None for text in seen) <= 2
            yield exam

    monkeypatch.setattr(task, "exams", watched)
    assert task.floors() and len(seen) == 6
