"""Memory of an exam does not grow with the text, beyond the text itself and one mark for each of its places."""

from __future__ import annotations

import torch

import baselines  # noqa: F401 - registers the models
from models.language_model import Size, seeded
from tasks import memory
from tasks.evaluate import answer
from tasks.task import IGNORE, Batch, Exam


def peak(model: torch.nn.Module, length: int) -> int:
    """Bytes held at most while a text of so many tokens is read for one question at its end."""
    tokens = torch.zeros(1, length, dtype=torch.long)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, -1] = 1
    memory.reset_peak("cpu")
    with torch.no_grad():
        answer(model, Exam(Batch(tokens, targets, {}), prompt=length))
    return memory.peak("cpu")


def test_reading_eight_times_as_much_takes_hardly_more_memory() -> None:
    model = seeded("gated-deltanet", Size(vocab=2048, width=16, depth=1, heads=2), 0)
    short = peak(model, 8 * 1024)
    assert peak(model, 64 * 1024) < short + 60 * 2**20
