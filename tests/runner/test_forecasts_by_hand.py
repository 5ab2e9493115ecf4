"""What a dry run says of three plans, beside the same figures worked out by hand from the plans' own numbers.

Of the reference Transformer, whose blocks hold 4 d^2 numbers of attention, 3 d f of SwiGLU and two norms, and whose embedding
is the output too. A token costs six operations a number of a matrix in training, and 14 t d a layer for attention over t tokens
(two products forward, five backward, two operations each). A number that is learned takes 16 bytes (itself, its gradient, two
averages). Of each token a layer keeps 12 d + 4 f numbers: a norm its input, the unit rows and the output (3 d, twice),
attention q, k and v as projected, q and k as turned, and its output (6 d), SwiGLU both halves, the gate behind SiLU and the
product; the last norm 3 d more. On the disk a kept model takes 4 bytes a number, a snapshot 12, of which two lie side by side
while one is written; a corpus of the hub twice its bytes. The same reckoning stands in docs/scaling.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import baselines  # noqa: F401  fills the registry
from models import registry
from results.plans import reader
from runner import costs
from runner.checkpoints.trained_model import CheckpointSettings
from runner.commands.shared import comparison
from runner.schedule.disk import Disk

H100 = 0.4 * 989e12  # operations a second that a forecast states in bfloat16


def of_the_reference(name: str) -> tuple[costs.Cost, Disk]:
    """The cost of the first training of the Transformer on text that a plan asks for, and what it takes on the disk."""
    plan = reader.load(reader.folder_of(comparison.RESULTS, name), registry.names())
    cells = comparison.cells(plan, [])
    asked = (
        cell
        for cell in cells
        if (cell.model, cell.kind, cell.task) == ("transformer", "training", "language-modelling")
    )
    cell, disk = next(asked), Disk()
    found = costs.of_cell(cell, CheckpointSettings(Path("nowhere")))
    disk.add(cell, found.numbers)
    return found, disk


def test_quick():
    """Width 64, 2 layers, f 168, 256 bytes; 200 steps of 1,024 tokens in texts of 128."""
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 168)  # 97,280
    numbers = matrices + 256 * 64 + 5 * 64  # 113,984
    per_token = 6 * (matrices + 256 * 64) + 2 * 14 * 128 * 64  # 911,360
    found, disk = of_the_reference("quick")
    assert found.operations == pytest.approx(per_token * 200 * 1024)  # 1.9e11
    weights, logits = 16 * numbers, 4 * (3 * 1024 + 64) * 256
    kept = 4 * 1024 * (2 * (12 * 64 + 4 * 168) + 3 * 64)
    assert found.memory == pytest.approx(weights + logits + kept, rel=0.05)  # 16 MB
    assert (list(disk.models.values()), disk.largest, disk.texts) == ([4 * numbers], 24 * numbers, {})  # 0.5 MB, 2.7 MB


def test_one_gpu_quick():
    """Width 384, 6 layers, f 1,024, 256 bytes; 245 steps of 32,768 tokens in texts of 512."""
    matrices = 6 * (4 * 384 * 384 + 3 * 384 * 1024)  # 10,616,832
    per_token = 6 * (matrices + 256 * 384) + 6 * 14 * 512 * 384
    found, disk = of_the_reference("titans-table1/one-gpu-quick")
    assert found.operations == pytest.approx(per_token * 245 * 32_768)
    assert found.operations / found.rate().operations == pytest.approx(per_token * 245 * 32_768 / H100)
    numbers = matrices + 256 * 384 + 13 * 384
    logits, kept = 4 * (3 * 32_768 + 384) * 256, 2 * 32_768 * (6 * (12 * 384 + 4 * 1024) + 3 * 384)
    assert found.memory == pytest.approx(16 * numbers + logits + kept, rel=0.05)  # 3.8 GB
    assert (list(disk.models.values()), disk.largest) == ([4 * numbers], 24 * numbers)  # 43 MB, 257 MB


def test_one_gpu():
    """Width 768, 12 layers, f 2,048, 32,000 words; 3,815 steps of 262,144 tokens in texts of 4,096, 32,768 at once."""
    matrices = 12 * (4 * 768 * 768 + 3 * 768 * 2048)  # 84,934,656
    per_token = 6 * (matrices + 32_000 * 768) + 12 * 14 * 4096 * 768
    found, disk = of_the_reference("titans-table1/one-gpu")
    assert found.operations == pytest.approx(per_token * 3815 * 262_144)  # 1.19e18
    assert found.operations / found.rate().operations / 60 == pytest.approx(50, abs=0.5)  # minutes of an H100
    weights, logits = 16 * (matrices + 32_000 * 768 + 25 * 768), 4 * (3 * 2**24 + 32_000 * 768)  # in pieces
    kept = 2 * 32_768 * (12 * (12 * 768 + 4 * 2048) + 3 * 768)
    assert found.memory == pytest.approx(weights + logits + kept, rel=0.05)  # 16 GB
    numbers = matrices + 32_000 * 768 + 25 * 768  # 109,529,856
    assert (list(disk.models.values()), disk.largest) == ([4 * numbers], 24 * numbers)  # 0.44 GB, 2.6 GB
    assert disk.texts == {"fineweb-edu:6GB": 12 * 10**9}
