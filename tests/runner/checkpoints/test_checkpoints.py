"""Trained models are kept: examined again without training, loaded back in one call, trained anew where damaged."""

from __future__ import annotations

import dataclasses
import json
import threading
import warnings
from pathlib import Path

import pytest
import torch

import tasks
from results.cell import Cell
from results.rows.store import Measured
from runner.cell_key import identify, training_key
from runner.checkpoints import store, teaching, trained_model
from runner.checkpoints.store import CheckpointError, load
from runner.checkpoints.trained_model import CheckpointSettings, learn
from runner.measure import measure
from schema.places import ROOT
from tasks.harness import tensor_file
from tasks.text.tokenizer import BYTES

NEEDLE = {"template": "compact", "variants": ["s-niah-1"], "length": 64, "test_lengths": [64], "samples": 1}
TIMES = ("training_seconds", "evaluation_seconds", "weights_age_seconds", "training_peak_memory_bytes")
CELL = Cell(
    comparison="tiny", kind="training", model="deltanet", settings={}, task="needle", task_settings=NEEDLE,
    size={"width": 16, "depth": 1, "heads": 2}, budget={"steps": 3, "batch_tokens": 128}, seed=0, lr=1e-3,
    dtype="float32", provider="auto", device="cpu", threads=1,
)  # fmt: skip


def quiet(news: dict) -> None:
    pass


def changed(**parts) -> Cell:
    return dataclasses.replace(CELL, **parts)


def asked(**settings) -> Cell:
    return changed(task_settings={**NEEDLE, **settings})


def key(cell: Cell) -> str:
    return training_key(cell, tasks.create(cell.task, **cell.task_settings))


def trained_by(cell: Cell, checkpoints: CheckpointSettings) -> trained_model.TrainedModel:
    return learn(cell, tasks.create(cell.task, **cell.task_settings), checkpoints, quiet)


def numbers(measured: Measured) -> list:
    return [m for m in measured.measurements if m[1] not in TIMES]


@pytest.fixture
def checkpoints(tmp_path) -> CheckpointSettings:
    return CheckpointSettings(tmp_path / "checkpoints")


@pytest.fixture
def trainings(monkeypatch) -> list[str]:
    """The models that are trained, one entry each time."""
    done, real = [], teaching.train

    def counted(model, *arguments, **options):
        done.append(type(model).__name__)
        return real(model, *arguments, **options)

    monkeypatch.setattr(teaching, "train", counted)
    return done


def test_a_kept_model_gives_the_rows_that_it_gave_when_it_was_trained(checkpoints, trainings):
    plain, first, second = measure(CELL, quiet), measure(CELL, quiet, checkpoints), measure(CELL, quiet, checkpoints)
    assert len(trainings) == 2
    assert numbers(plain) == numbers(first) == numbers(second)
    for field in ("parameters", "state_bytes", "protocol", "provider", "predictions"):
        assert getattr(plain, field) == getattr(first, field) == getattr(second, field)
    times = [next(m for m in one.measurements if m[1] == "training_seconds") for one in (first, second)]
    assert times[0] == times[1] and times[0][3] == 3
    ages = [[m[2] for m in one.measurements if m[1] == "weights_age_seconds"] for one in (first, second)]
    assert ages[0] == [] and 0 < ages[1][0] < 600


def test_other_exam_settings_need_no_training_and_another_comparison_neither(checkpoints, trainings):
    measure(CELL, quiet, checkpoints)
    more = measure(asked(test_lengths=[64, 128], samples=2), quiet, checkpoints)
    assert {m[4]["length"] for m in more.measurements if m[1] == "compact_exact_match"} == {64, 128}
    measure(changed(comparison="another"), quiet, checkpoints)
    assert len(trainings) == 1
    measure(asked(length=128), quiet, checkpoints)
    assert len(trainings) == 2


@pytest.mark.parametrize(
    "other",
    [
        changed(seed=1),
        changed(lr=2e-3),
        changed(model="gated-deltanet"),
        changed(settings={"kernel": 3}),
        changed(budget={"steps": 4, "batch_tokens": 128}),
        changed(size={"width": 32, "depth": 1, "heads": 2}),
        changed(dtype="bfloat16"),
        changed(provider="recurrence"),
        asked(length=128),
        asked(variants=["s-niah-2"]),
    ],
)
def test_the_key_follows_what_weights_depend_on(other):
    assert key(other) != key(CELL)


@pytest.mark.parametrize(
    "same",
    [changed(comparison="b"), changed(variant="named"), changed(stage="chosen"), asked(samples=9), asked(depths=[0.5])],
)
def test_the_key_leaves_out_what_they_do_not(same):
    assert key(same) == key(CELL) and identify(same).key != identify(CELL).key


def test_what_a_model_does_in_exams_only_is_left_out(monkeypatch):
    from models import registry

    monkeypatch.setattr(registry.entry("deltanet").cls, "exam_settings", ("kernel",), raising=False)
    assert key(changed(settings={"kernel": 3})) == key(CELL)


@pytest.mark.parametrize("model", ["transformer", "transformer-window"])
def test_attention_with_scaled_rotary_positions_shares_the_plain_model_s_weights(model):
    extended = {"rotary_scaling": "ntk", "rotary_factor": 8.0}
    plain, scaled = changed(model=model), changed(model=model, settings=extended)
    assert key(scaled) == key(plain) and identify(scaled).key != identify(plain).key


def test_a_folder_holds_what_the_model_is(checkpoints):
    measure(CELL, quiet, checkpoints)
    folder = checkpoints.folder / key(CELL)
    assert sorted(p.name for p in folder.iterdir()) == sorted([store.WEIGHTS, store.LOSSES, store.FACTS])
    facts = json.loads((folder / store.FACTS).read_text())
    assert (facts["model"], facts["task"], facts["seed"], facts["vocab"]) == ("deltanet", "needle", 0, 256)
    assert facts["size"] == CELL.size and facts["budget"] == CELL.budget and facts["tokenizer"]["name"] == "byte"
    assert facts["parameters"] > 0 and len(facts["code_hash"]) == 16 and facts["providers"] in (["chunked"], ["native"])


def test_a_model_is_loaded_back_in_one_call(checkpoints):
    trained = trained_by(CELL, checkpoints)
    kept = load(checkpoints.folder / key(CELL))
    tokens = torch.randint(256, (2, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(kept.model(tokens)[0], trained.model.eval()(tokens)[0])
    assert kept.tokenizer is BYTES and kept.facts["model"] == "deltanet" and not kept.model.training


def test_symbols_have_no_tokenizer(checkpoints):
    cell = changed(task="mqar", task_settings={"samples": 4})
    trained_by(cell, checkpoints)
    assert load(checkpoints.folder / key(cell)).tokenizer is None


def test_a_learned_tokenizer_is_kept_beside_the_weights(checkpoints, tmp_path, monkeypatch):
    pytest.importorskip("tokenizers", reason="byte pairs need tokenizers")
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "book.txt"
    text.write_text("\n".join(f"The {n}th house stands by the river, and nobody knows why.\n" for n in range(4000)))
    cell = changed(
        task="language-modelling", task_settings={"corpus": f"{text}#cut", "tokenizer": "bpe:300", "length": 32}
    )
    trained_by(cell, checkpoints)
    folder = checkpoints.folder / key(cell)
    text.unlink()
    tokenizer = load(folder).tokenizer
    assert tokenizer.vocab == 300 and tokenizer.decode(tokenizer.encode("the river")) == "the river"


def test_a_model_of_a_file_is_loaded_with_its_file(checkpoints, tmp_path, no_user_files):
    import re

    from models import registry, user_file

    page = (ROOT / "docs" / "add_a_baseline.md").read_text()
    source = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "@register" in block)
    mine = tmp_path / "kept_mine.py"
    mine.write_text(source.replace('"my-hgrn2"', '"kept-hgrn2"'))
    user_file.load_file(mine)
    cell = changed(model="kept-hgrn2", model_files=(str(mine),))
    trained_by(cell, checkpoints)
    folder = checkpoints.folder / key(cell)
    registry._entries.pop("kept-hgrn2")
    with pytest.raises(
        CheckpointError, match=r"registered in '.*kept_mine.py'. A folder of data runs no code: .* --models"
    ):
        load(folder)
    assert load(folder, model_files=[mine]).facts["model"] == "kept-hgrn2"


@pytest.mark.parametrize("says", ["nothing there", "no checkpoint"])
def test_a_folder_without_a_checkpoint_is_one_sentence(tmp_path, says):
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        load(tmp_path / says)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


HARM = {
    "weights cut": lambda folder: (folder / store.WEIGHTS).write_bytes(b"1234567890"),
    "weights flipped": lambda folder: flip(folder / store.WEIGHTS),
    "weights gone": lambda folder: (folder / store.WEIGHTS).unlink(),
    "losses flipped": lambda folder: flip(folder / store.LOSSES),
    "facts torn": lambda folder: (folder / store.FACTS).write_text('{"schema": 1, "mod'),
    "facts of another version": lambda folder: (folder / store.FACTS).write_text('{"schema": 0}'),
    "of another model": lambda folder: tensor_file.write(folder / store.WEIGHTS, {"a": torch.ones(2)}, {}),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("harm", HARM)
def test_a_corrupt_checkpoint_is_told_and_trained_anew(checkpoints, trainings, harm):
    first = measure(CELL, quiet, checkpoints)
    HARM[harm](checkpoints.folder / key(CELL))
    with pytest.warns(UserWarning, match=r"checkpoints.*the model is trained anew"):
        again = measure(CELL, quiet, checkpoints)
    assert len(trainings) == 2 and numbers(again) == numbers(first)
    HARM[harm](checkpoints.folder / key(CELL))
    if harm != "losses flipped":  # a model can be asked without them
        with pytest.raises(CheckpointError, match="run its comparison again"):
            load(checkpoints.folder / key(CELL))
    with pytest.warns(UserWarning, match="trained anew"):
        measure(CELL, quiet, checkpoints)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(CELL, quiet, checkpoints)
    assert len(trainings) == 3


def test_a_full_disk_costs_the_checkpoint_and_no_measurement(checkpoints, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    expected = numbers(measure(CELL, quiet))
    monkeypatch.setattr(tensor_file, "write", full)
    with pytest.warns(UserWarning, match="could not be kept.*No space left.*stands"):
        assert numbers(measure(CELL, quiet, checkpoints)) == expected
    assert store.read_facts(checkpoints.folder / key(CELL)) is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="Nothing can be kept in"):
        assert measure(CELL, quiet, CheckpointSettings(tmp_path / "file" / "checkpoints")).measurements


def test_a_trial_keeps_no_model_but_takes_one_that_is_there(checkpoints, trainings):
    trial = changed(kind="trial", stage="trial", where={"split": "validation", "full_steps": 3})
    judged = measure(trial, quiet, checkpoints)
    assert not list(checkpoints.folder.glob("*/*")) and len(trainings) == 1
    measure(CELL, quiet, checkpoints)
    again = measure(trial, quiet, checkpoints)
    assert len(trainings) == 2 and numbers(again) == numbers(judged)


def test_a_killed_training_of_a_cell_goes_on_bit_by_bit(checkpoints, monkeypatch):
    """The snapshots of real models; tests/tasks/test_snapshots.py asks the rest."""

    class Killed(Exception):
        pass

    def fatal(news):
        if news.get("step") == 6:
            raise Killed

    for model in ("gated-deltanet", "titans-mac", "rmt"):
        cell = changed(model=model, budget={"steps": 6, "batch_tokens": 128})
        task = tasks.create(cell.task, **cell.task_settings)
        expected = learn(cell, task, None, quiet)
        with pytest.raises(Killed):  # after the last step, before anything is kept: the snapshot is that of step 5
            learn(cell, task, CheckpointSettings(checkpoints.folder, 0), fatal)
        folder = checkpoints.folder / training_key(cell, task)
        tensors, _ = tensor_file.read(folder / store.SNAPSHOT)
        assert len(tensors["losses"]) == 5
        found = learn(cell, task, CheckpointSettings(checkpoints.folder, 0), quiet)
        assert found.training.losses == expected.training.losses
        weights = expected.model.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in found.model.state_dict().items())
        assert not (folder / store.SNAPSHOT).exists()


def test_a_diverged_training_leaves_nothing(checkpoints, monkeypatch):
    def diverges(model, task, **options):
        options["snapshots"].path.parent.mkdir(exist_ok=True)
        options["snapshots"].path.write_bytes(b"x")
        raise FloatingPointError("diverged")

    monkeypatch.setattr(teaching, "train", diverges)
    with pytest.raises(FloatingPointError):
        trained_by(CELL, checkpoints)
    assert not list(checkpoints.folder.glob("*/*.safetensors"))


def test_who_wants_a_model_that_is_being_trained_waits_for_it(checkpoints, trainings):
    found = []
    threads = [threading.Thread(target=lambda: found.append(trained_by(CELL, checkpoints))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(trainings) == 1
