"""Contests and variants in a plan: what they ask for, what the command line changes, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from results.cell import Cell
from results.plans import reader as plans
from results.plans.reader import PlanError
from results.rows import row

NAMES = ["transformer", "retnet", "titans-lmm"]
CONTEST = """
title = "Race"
question = "Who is fastest?"
[settings.titans-lmm]
chunk = 64
[[contests]]
name = "layers"
level = "layer"
reference = "other"
models = ["retnet"]
lengths = [64, 256]
sizes = [{ width = 32, depth = 1, heads = 2 }]
dtypes = ["float32", "bfloat16"]
repeats = [9, 2]
[[contests.entrants]]
name = "linear"
model = "titans-lmm"
settings = { memory_depth = 1 }
[[contests.entrants]]
name = "other"
opponent = "sdpa"
repeats = 3
longest = 64
"""
VARIANTS = """
title = "Ablation"
question = "What matters?"
models = ["shallow", "retnet"]
seeds = [0]
learning_rate = 1e-3
size = { width = 16, depth = 1, heads = 2 }
budget = { steps = 1, batch_tokens = 64 }
[settings.titans-lmm]
chunk = 8
[variants.shallow]
model = "titans-lmm"
memory_depth = 1
[variants.deep]
model = "titans-lmm"
memory_depth = 3
[[tasks]]
name = "needle"
"""


def load(tmp_path, text=CONTEST):
    (tmp_path / "race").mkdir(exist_ok=True)
    (tmp_path / "race" / "plan.toml").write_text(text)
    return plans.load(tmp_path / "race")


def test_a_contest_is_a_cell_for_each_dtype_size_and_length(tmp_path):
    cells = plans.cells(load(tmp_path), NAMES)
    assert [(c.kind, c.task, c.dtype, c.where["length"]) for c in cells] == [
        ("contest", "layers", dtype, length) for dtype in ("float32", "bfloat16") for length in (64, 256)
    ]
    assert cells[0].is_timed and cells[0].size == {"width": 32, "depth": 1, "heads": 2}
    assert [e["name"] for e in cells[0].entrants] == ["retnet", "linear", "other"]
    assert [e["repeats"] for e in cells[0].entrants] == [9, 9, 3]
    assert [e["repeats"] for e in cells[1].entrants] == [2, 2, 2] and cells[0].entrants[2]["longest"] == 64
    assert cells[0].entrants[1]["settings"] == {"chunk": 64, "memory_depth": 1}
    restored = Cell(**json.loads(json.dumps(dataclasses.asdict(cells[0]))))
    assert dataclasses.replace(restored, model_files=()) == cells[0]


def test_length_entrants_and_machine_enter_the_key(tmp_path):
    cells = plans.cells(load(tmp_path), NAMES)
    assert len({row.key(cell) for cell in cells}) == len(cells)
    fewer = dataclasses.replace(cells[0], entrants=cells[0].entrants[:2])
    assert row.key(fewer) != row.key(cells[0])
    assert row.key(cells[0], machine="one") != row.key(cells[0], machine="two")


def test_the_command_line_picks_entrants_and_adds_models(tmp_path):
    plan = load(tmp_path).with_overrides(models=["linear", "transformer"], dtype="float32")
    cells = plans.cells(dataclasses.replace(plan), [*NAMES, "linear"])
    assert [e["name"] for e in cells[0].entrants] == ["transformer", "linear", "other"] and len(cells) == 2


def test_a_candidate_that_stands_by_itself_is_not_one_of_all(tmp_path):
    """One of all models may be timed on terms of its own: fewer rounds, or short texts alone."""
    text = CONTEST.replace('models = ["retnet"]', 'models = ["all"]')
    slow = '\n[[contests.entrants]]\nname = "retnet"\nmodel = "retnet"\nrepeats = 1\n'
    [cell, *_] = plans.cells(load(tmp_path, text + slow), NAMES)
    assert [e["name"] for e in cell.entrants] == ["transformer", "titans-lmm", "linear", "other", "retnet"]
    assert [e["repeats"] for e in cell.entrants] == [9, 9, 9, 3, 1]


def test_reading_enters_a_cells_settings_and_training_leaves_them_as_they_were(tmp_path):
    """Keys of rows that were measured before there was a direction stay."""
    assert "direction" not in plans.cells(load(tmp_path), NAMES)[0].task_settings
    reading = CONTEST.replace("repeats = [9, 2]", 'repeats = [9, 2]\ndirection = "reading"')
    assert plans.cells(load(tmp_path, reading), NAMES)[0].task_settings["direction"] == "reading"


def test_decoding_is_of_recurrences_alone_and_a_record_enters_the_key(tmp_path):
    text = CONTEST.replace('level = "layer"', 'level = "operation"\ndirection = "decoding"')
    (called, *_), (recorded, *_) = (
        plans.cells(load(tmp_path, one), NAMES)
        for one in (text, text.replace('name = "linear"', 'name = "linear"\nrecorded = true'))
    )
    assert called.task_settings["direction"] == "decoding"
    assert ["recorded" in e for e in called.entrants] == [False, False, False]
    assert [e.get("recorded", False) for e in recorded.entrants] == [False, True, False]
    assert row.key(called) != row.key(recorded)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('level = "layer"', 'level = "op"', "level 'op' is unknown; choose one of operation, layer, model"),
        (
            "repeats = [9, 2]",
            'direction = "prefill"',
            "direction 'prefill' is unknown; choose one of training, reading, decoding",
        ),
        ("repeats = [9, 2]", 'direction = "decoding"', "direction 'decoding' is of level 'operation'"),
        ('name = "linear"', 'name = "linear"\nrecorded = true', "linear is recorded, which is for models in direction"),
        (
            'level = "layer"',
            'level = "model"',
            "other is a layer; external implementations join side-by-side benchmarks with level = 'layer' or 'operation'",
        ),
        ('reference = "other"', 'reference = "nobody"', "the reference 'nobody' is none of the candidates"),
        ('name = "linear"', 'name = "other"', "other stands twice"),
        ('opponent = "sdpa"', "", "candidate other needs a model or an external implementation, and not both"),
        ("repeats = [9, 2]", "repeats = [9, 2, 1]", "repeats is one number, or a list with one for each length"),
        ("repeats = [9, 2]", "repeats = 0", "must be positive"),
        ("longest = 64", "length = 64", r"unknown key 'length'"),
        ("width = 32", "width = 33", "a width must be a multiple of its heads"),
        ('models = ["retnet"]', 'models = ["retnett"]', r"no model 'retnett'.*did you mean retnet"),
        (
            'models = ["retnet"]',
            'models = ["../mine.py"]',
            r"no model '../mine.py'.*--models on the command line names the file",
        ),
        ("lengths = [64, 256]", "lengths = []", "lengths is empty"),
    ],
)
def test_a_broken_contest_is_one_sentence(tmp_path, old, new, message):
    assert old in CONTEST
    with pytest.raises(PlanError, match=message) as caught:
        plans.cells(load(tmp_path, CONTEST.replace(old, new, 1)), NAMES)
    assert "\n" not in str(caught.value)


def test_a_variant_is_its_model_under_its_settings_and_name(tmp_path):
    plan = load(tmp_path, VARIANTS)
    training = [c for c in plans.cells(plan, NAMES) if c.kind == "training"]
    assert [(c.model, c.variant, c.settings) for c in training] == [
        ("titans-lmm", "shallow", {"chunk": 8, "memory_depth": 1}),
        ("retnet", "", {}),
    ]
    assert training[0].describe() == "shallow on needle, seed 0"
    renamed = dataclasses.replace(training[0], variant="other")
    assert row.key(renamed) != row.key(training[0])


def test_variants_are_chosen_and_set_by_name(tmp_path):
    plan = load(tmp_path, VARIANTS).with_overrides(models=["deep"], settings={"deep": {"chunk": 4}})
    cell = plans.cells(plan, NAMES)[-1]
    assert (cell.variant, cell.settings) == ("deep", {"chunk": 4, "memory_depth": 3})


def test_without_a_list_of_models_the_variants_run(tmp_path):
    plan = load(tmp_path, VARIANTS.replace('models = ["shallow", "retnet"]', ""))
    assert [c.variant for c in plans.cells(plan, NAMES)] == ["", "shallow", "deep"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('model = "titans-lmm"', "", r"\[variants.shallow\] model is missing"),
        ('model = "titans-lmm"', 'model = "titans-lm"', "no model 'titans-lm'.*did you mean titans-lmm"),
        ("[variants.shallow]", "[variants.retnet]", r"\[variants.retnet\] has the name of a model"),
    ],
)
def test_a_broken_variant_is_one_sentence(tmp_path, old, new, message):
    with pytest.raises(PlanError, match=message):
        plans.cells(load(tmp_path, VARIANTS.replace(old, new, 1)), NAMES)
