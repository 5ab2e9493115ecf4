"""Trained cells measured once more: what a forged number, another code and another choice of cells come to."""

from __future__ import annotations

import random

import pytest

import bench
from models import registry
from results.plans import reader as plans
from results.rows import store
from runner.again import retrained
from runner.cell_key import identify
from runner.measure import measure
from tests.support.tiny_plan import tiny_plan


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of two tiny trainings and of trivial baselines."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    folder.mkdir()
    (folder / "plan.toml").write_text(tiny_plan(seeds=(0,)))
    found = []
    for cell in plans.cells(plans.load(folder), registry.names()):
        found += store.rows(cell, identify(cell), measure(cell, lambda progress: None))
    return found


def again(rows, models=("deltanet",)):
    chosen = retrained.drawn(rows, None, models, random.Random(0))
    return retrained.train_again(chosen, workers=1, timeout=120, quiet=True)


def test_true_rows_come_again_to_the_last_digit(rows):
    repeats = again(rows, models=())
    assert [repeat.cell.split()[0] for repeat in repeats] == ["transformer", "deltanet"]
    assert all(repeat.numbers > 3 and not repeat.apart and not repeat.since for repeat in repeats)
    assert "2 cells trained again" in retrained.counted(repeats)


def test_a_number_forged_in_its_last_digits_is_a_fault(rows):
    forged = [row | {"value": row["value"] * (1 + 1e-12)} if row["metric"] == "training_loss" else row for row in rows]
    (repeat,) = again(forged)
    assert repeat.is_fault and len(repeat.apart) == 1
    assert repeat.furthest().startswith("training loss (")


def test_a_number_that_other_code_made_is_told_and_is_no_fault(rows):
    old = [row | {"code_hash": "of another day", "value": row["value"] + 1, "provider": "chunked"} for row in rows]
    (repeat,) = again(old)
    assert repeat.apart and not repeat.is_fault
    assert repeat.since[0] == "code" and repeat.since[1].startswith("provider (chunked then, ")


def test_times_are_not_held(rows):
    slow = [row | {"value": 1e6} if row["metric"].endswith("seconds") else row for row in rows]
    (repeat,) = again(slow)
    assert not repeat.apart


def test_cells_are_drawn_among_the_models_that_are_named(rows):
    assert len(retrained.drawn(rows, 1, (), random.Random(0))) == 1
    assert len(retrained.drawn(rows, 9, (), random.Random(0))) == 2
    with pytest.raises(ValueError, match="the rows hold: deltanet, transformer"):
        retrained.drawn(rows, 1, ("mamba",), random.Random(0))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--train-again", "0"), "a number of cells, 1 or more, or all, not '0'"),
        (("--models", "mamba"), "a model's name goes with --train-again"),
        (("--train-again", "1", "--models", "nosuch"), "There is no trained cell to train again of these models"),
    ],
)
def test_flags_that_make_no_sense_are_one_sentence_before_anything_is_scored(words, says, capsys):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(bench.main(["verify", "quick", "--reference", *words]))
    printed = capsys.readouterr()
    assert ended.value.code and says in " ".join(printed.err.split()) and not printed.out
