"""What a dry run says that a cell will cost, held to the model that is built."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance import costs as accounting
from models.language_model import Size, seeded
from models.matching.counts import training_flops
from models.matching.match import PARAMETERS
from models.matching.shapes_only import shapes_only
from models.matching.solver import solve
from models.ops.providers import probing
from models.shell.model import assemble, deep_enough
from results.cell import Cell
from runner import costs
from runner.build import build
from runner.checkpoints.trained_model import CheckpointSettings, learn
from runner.preflight import kept_memory
from runner.schedule.forecast import Cost

CELL = Cell(
    comparison="tiny", kind="training", model="gated-deltanet", settings={}, task="mqar", task_settings={"samples": 2},
    size={"width": 16, "depth": 1, "heads": 2}, budget={"steps": 2, "batch_tokens": 128}, seed=0, lr=1e-3,
    dtype="float32", provider="auto", device="cpu", threads=1,
)  # fmt: skip


def test_operations_and_memory_are_those_of_the_model(monkeypatch):
    whole = costs.of_cell(CELL, None)
    monkeypatch.setattr(costs, "kept_per_token", lambda *asked: (0.0, 0.0))
    found = costs.of_cell(CELL, None)
    assert whole.memory > found.memory
    model = build(CELL, 128)
    per_token = accounting.training_flops_per_token("gated-deltanet", Size(128, **CELL.size), 64)
    assert found.operations == pytest.approx(per_token * 2 * 128)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert found.memory == 16 * numbers + 12 * 128 * 128 + 4 * 128 * 16 and not found.is_trained


@pytest.mark.parametrize("name", ["transformer", "gated-deltanet", "titans-mac", "rmt", "mamba"])
def test_what_a_forward_pass_keeps_grows_with_the_tokens(name):
    """As much as the larger batch of a training keeps where nothing is compiled, counted by torch's own hooks there."""
    size = Size(256, 32, 2, 2)
    model, kept = seeded(name, size, 0), {}
    own = {id(parameter) for parameter in model.parameters()}

    def keep(tensor):
        if id(tensor) not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    tokens = torch.randint(256, (3, 256), generator=torch.Generator().manual_seed(0))
    with probing(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(tokens)
    expected = sum(storage.nbytes() for storage in kept.values())
    assert kept_memory.kept_per_token(name, size, "{}").passes * tokens.numel() == pytest.approx(expected, rel=0.2)


def test_states_that_are_stored_now_and_then_are_not_counted_as_if_all_were_kept():
    size = Size(256, 32, 2, 2)
    all_kept, now_and_then = (
        kept_memory.kept_per_token("titans-lmm", size, json.dumps({"expansion": 4, "store_every": every})).passes
        for every in (None, 256)
    )
    assert now_and_then < 0.5 * all_kept


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", registry.names())
def test_numbers_and_operations_at_any_vocabulary_are_those_of_the_model(name):
    """Though a model is built at one vocabulary alone."""
    size = deep_enough(registry.entry(name), Size(40, 32, 1, 2))
    numbers, work, _ = costs._model(name, size, PARAMETERS, "{}", 64)
    shape = solve(registry.entry(name), dataclasses.replace(size, vocab=256), {})
    with shapes_only():
        model = assemble(registry.entry(name), size, shape, {})
    assert numbers == sum(parameter.numel() for parameter in model.parameters())
    assert work == pytest.approx(training_flops(model, 64))


def test_a_kept_model_is_known(tmp_path):
    import tasks

    checkpoints = CheckpointSettings(tmp_path)
    learn(CELL, tasks.create(CELL.task, **CELL.task_settings), checkpoints, lambda news: None)
    assert costs.of_cell(CELL, checkpoints).is_trained
    assert costs.of_cell(dataclasses.replace(CELL, task_settings={"samples": 9}), checkpoints).is_trained
    assert not costs.of_cell(dataclasses.replace(CELL, seed=1), checkpoints).is_trained


@pytest.mark.parametrize("kind", ["floors", "timing", "contest"])
def test_what_does_not_train_has_no_cost_of_training(kind):
    assert costs.of_cell(dataclasses.replace(CELL, kind=kind), None) == Cost()


def test_a_forecast_reads_no_data_and_tells_what_a_missing_tokenizer_leaves_out(monkeypatch):
    from tasks.text import corpus

    for name in ("documents", "texts", "data_hash", "version"):
        monkeypatch.setattr(corpus, name, lambda *asked: pytest.fail("data were read"))
    asked = {"corpus": "absent.jsonl", "tokenizer": "gpt2", "length": 64}
    cell = dataclasses.replace(CELL, task="language-modelling", task_settings=asked)
    known = costs.of_cell(cell, None)
    unknown = costs.of_cell(dataclasses.replace(cell, task_settings=asked | {"tokenizer": "absent.json"}), None)
    assert known.has_vocab and not unknown.has_vocab and known.memory > unknown.memory + 8 * 50_000 * 128
    assert known.rate() is None  # nothing was timed on a CPU
    gpu = costs.of_cell(dataclasses.replace(cell, device="cuda", dtype="bfloat16"), None)
    assert not gpu.rate().is_measured and "40%" in gpu.rate().source
