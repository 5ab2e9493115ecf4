"""What is refused before anything is built: what no memory here holds, and what no machine can count."""

from __future__ import annotations

import pytest

import bench
from runner.preflight import capacity
from tests.support import synthetic


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "tiny", "--size", "width=16,depth=10000000,heads=2"], "of memory or more"),
        (["run", "tiny", "--size", "width=1000000000,heads=1"], "of memory or more"),
        (["run", "tiny", "--size", "width=4611686018427387904,heads=1"], "of memory or more"),
        (["run", "tiny", "--set", "needle.length=1000000000000"], "a text of 1000000000000 tokens (length"),
        (["run", "tiny", "--set", "needle.samples=1000000000000"], "the answers to 1000000000000 samples"),
        (
            ["run", "tiny", "--dry-run", "--set", "needle.samples=9223372036854775808"],
            "the answers to 9223372036854775808 samples",
        ),
        (["run", "tiny", "--set", "needle.test_lengths=[1000000000000]"], "a text of 1000000000000 tokens"),
        (
            ["run", "tiny", "--dry-run", "--device", "cuda", "--size", "width=1000000000,heads=1"],
            "what one process can address",
        ),
        (["run", "tiny", "--dry-run", "--size", "width=4611686018427387904,heads=1"], "of memory or more"),
        (["list", "--costs", "--size", "width=1000000000,heads=1"], "of memory or more"),
        (["profile", "retnet", "--threads", "2147483648"], "processors of this machine"),
        (["profile", "retnet", "--batch", "4611686018427387904"], "a batch of 4611686018427387904 rows"),
        (["run", "tiny", "--seeds", "18446744073709551616"], "a seed has 64 bits"),
        (["run", "tiny", "--dry-run", "--size", "width=16,depth=100000,heads=2"], "of memory or more"),
        (["run", "tiny", "--dry-run", "--set", "needle.length=1000000000000"], "of memory or more"),
        (
            ["run", "tiny", "--dry-run", "--device", "cuda", "--set", "needle.length=1000000000000"],
            "one process can address",
        ),
    ],
)
def test_what_cannot_fit_is_refused_in_one_sentence(results, capsys, arguments, says):
    assert bench.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and len(error) < 400
    assert not (results / "tiny" / "rows.jsonl").exists()


@pytest.mark.parametrize("vocab", [10**12, 2**63])
def test_a_vocabulary_that_cannot_fit_is_refused(results, capsys, vocab):
    plan = results / "tiny" / "plan.toml"
    plan.write_text(plan.read_text().partition("[[tasks]]")[0] + f'[[tasks]]\nname = "mqar"\nvocab = {vocab}\n')
    for more in ([], ["--dry-run"]):
        assert bench.main(["run", "tiny", *more]) == 2
        error = capsys.readouterr().err
        assert f"a vocabulary of {vocab} tokens at width 16 needs" in error and error.count("\n") == 1
    assert not (results / "tiny" / "rows.jsonl").exists()


def test_tokens_at_once_that_cannot_fit_are_told(results, capsys):
    plan = results / "tiny" / "plan.toml"
    plan.write_text(plan.read_text().replace("batch_tokens = 256", "batch_tokens = 4611686018427387904"))
    assert bench.main(["run", "tiny"]) == 2
    assert "with 4611686018427387904 tokens at once" in capsys.readouterr().err


def test_many_samples_beside_one_long_text_are_not_refused(monkeypatch):
    monkeypatch.setattr(capacity, "memory_of", lambda device: 2**30)
    asked = {"samples": 1000, "long_samples": 1, "test_lengths": [128, 10**6]}  # BABILong draws them a few at a time
    cell = synthetic.variant(synthetic.cell("retnet", "babilong"), task_settings=asked)
    capacity.check_cell(cell)
    with pytest.raises(ValueError, match="the answers to 1000000000 samples"):
        capacity.check_cell(synthetic.variant(cell, task_settings=asked | {"samples": 10**9}))


def test_a_training_that_its_forecast_puts_beyond_the_memory_is_refused_before_it_starts(results, capsys, monkeypatch):
    monkeypatch.setattr(capacity, "memory_of", lambda device: 2**19)
    monkeypatch.setattr(capacity, "check_cell", lambda *asked: None)
    assert bench.main(["run", "tiny", "--tasks", "needle"]) == 2
    error = capsys.readouterr().err
    assert "is forecast to need" in error and "512.0 KiB here" in error and "micro_batch_tokens" in error
    assert error.count("\n") == 1 and not (results / "tiny" / "rows.jsonl").exists()


def test_a_training_that_may_not_fit_is_warned_of(monkeypatch):
    monkeypatch.setattr(capacity, "memory_of", lambda device: 2**30)
    capacity.check_forecast_here(2**30, "Training", "cpu")
    with pytest.warns(UserWarning, match="forecast to need 1.1 GiB"):
        capacity.check_forecast_here(int(1.1 * 2**30), "Training", "cpu")
    with pytest.raises(ValueError, match="forecast to need 1.5 GiB"):
        capacity.check_forecast_here(int(1.5 * 2**30), "Training", "cpu")
