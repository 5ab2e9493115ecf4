"""A checkpoint is evaluated on the test of a task from the command line, in its own tokens."""

from __future__ import annotations

import re

import pytest

import bench
import tasks
from models.language_model import Size, seeded
from runner.checkpoints import store
from tasks.harness.evaluate import evaluate
from tasks.harness.train import Training
from tasks.text.tokenizer import BYTES

NEEDLE = {"variants": ["s-niah-1"], "length": 64, "test_lengths": [64], "depths": [0.5], "samples": 4}


def kept(folder, vocab: int, tokenizer, task: str):
    model = seeded("gated-deltanet", Size(vocab, 16, 1, 2), 0)
    facts = {"model": "gated-deltanet", "settings": {}, "size": {"width": 16, "depth": 1, "heads": 2}, "vocab": vocab}
    facts |= {"seed": 1, "task": task, "model_files": []}
    store.save(folder, model, tokenizer, Training([1.0], 1, 1.0), facts)
    return model


def test_a_kept_model_sits_the_needle(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    model = kept(tmp_path / "kept", 256, BYTES, "language-modelling")
    settings = [word for key, value in NEEDLE.items() for word in ("--set", f"needle.{key}={value}")]
    assert bench.main(["ask", str(tmp_path / "kept"), "needle", *settings]) == 0
    said = capsys.readouterr().out
    assert "gated-deltanet, trained on language-modelling, asked needle" in said and "unit byte" in said
    for m in evaluate(model.eval(), tasks.create("needle", **NEEDLE)):
        assert any(m.metric in line and f"{m.value:.4f}" in line for line in said.splitlines())


@pytest.mark.parametrize(
    ("vocab", "tokenizer", "asked", "sentence"),
    [
        (128, None, ["needle"], "knows symbols alone: ask it a task of symbols, not needle"),
        (256, BYTES, ["mqar"], "mqar under these settings has 128 tokens, .* knows 256 others"),
        (64, None, ["mqar"], "mqar under these settings has 128 tokens, .* knows 64 others"),
        (256, BYTES, ["neddle"], "There is no task 'neddle'"),
        (256, BYTES, ["needle", "--set", "mqar.length=64"], "--set names mqar, but needle is asked"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_sentence(vocab, tokenizer, asked, sentence, tmp_path, capsys):
    kept(tmp_path / "kept", vocab, tokenizer, "mqar")
    assert bench.main(["ask", str(tmp_path / "kept"), *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(sentence, line)


def test_a_folder_that_is_not_there_is_told(tmp_path, capsys):
    assert bench.main(["ask", str(tmp_path / "nowhere"), "needle"]) == 2
    assert "nowhere: give a checkpoint's folder, or a Hugging Face model's folder" in capsys.readouterr().err


def test_a_model_of_symbols_is_asked_symbols(tmp_path, capsys):
    kept(tmp_path / "kept", 128, None, "mqar")
    settings = ["--set", "mqar.test_pairs=[4]", "--set", "mqar.test_lengths=[32]", "--set", "mqar.samples=4"]
    assert bench.main(["ask", str(tmp_path / "kept"), "mqar", *settings, "--set", "mqar.pairs=[4]"]) == 0
    assert "accuracy" in capsys.readouterr().out
