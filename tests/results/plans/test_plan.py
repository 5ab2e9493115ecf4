"""Plans: what a good one asks for, and one clear sentence for everything that a bad one gets wrong."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest

from results.cell import Cell
from results.plans import files
from results.plans import reader as plans
from results.plans.reader import PlanError

NAMES = ["transformer", "retnet", "mamba2", "gated-deltanet"]
GOOD = """
title = "Quick"
question = "Who remembers?"
models = ["all"]
seeds = [0, 1]
learning_rate = 3e-3
workers = 2
[size]
width = 64
depth = 2
heads = 4
[budget]
steps = 200
batch_tokens = 4096
[settings.mamba2]
state = 64
[[tasks]]
name = "language-modelling"
[[tasks]]
name = "needle"
template = "compact"
lengths = [128, 256]
budget = {steps = 300}
learning_rate = 0.001
models = ["retnet", "mamba2"]
[[timings]]
name = "throughput"
lengths = [128, 512]
"""


def write(tmp_path, text=GOOD, name="quick"):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    (folder / "plan.toml").write_text(text)
    return folder / "plan.toml"


@pytest.fixture
def plan(tmp_path):
    return plans.load(write(tmp_path))


def test_cells_come_as_floors_then_training_then_timing(plan):
    cells = plans.cells(plan, NAMES)
    assert [cell.kind for cell in cells] == ["floors"] * 2 + ["training"] * (2 * 4 + 2 * 2) + ["timing"] * 4
    assert [(c.model, c.task, c.size, c.budget) for c in cells[:2]] == [
        ("", "language-modelling", {}, {}),
        ("", "needle", {}, {}),
    ]
    needle = [c for c in cells if c.kind == "training" and c.task == "needle"]
    assert [(c.model, c.seed) for c in needle] == [("retnet", 0), ("mamba2", 0), ("retnet", 1), ("mamba2", 1)]
    assert needle[0].budget == {"steps": 300, "batch_tokens": 4096} and needle[0].lr == 0.001
    assert needle[1].settings == {"state": 64} and needle[0].settings == {}
    assert needle[0].task_settings == {"template": "compact", "lengths": [128, 256]}
    assert needle[0].comparison == "quick" and needle[0].threads == 1
    assert cells[-1].task_settings == {"lengths": [128, 512]} and cells[-1].seed == 0


def test_rounds_of_a_timing_take_all_models_in_turn(tmp_path):
    plan = plans.load(write(tmp_path, GOOD.replace('name = "throughput"', 'name = "throughput"\nrounds = 3')))
    timed = [(cell.seed, cell.model) for cell in plans.cells(plan, NAMES) if cell.kind == "timing"]
    assert timed == [(turn, name) for turn in range(3) for name in NAMES]
    settings = [cell.task_settings for cell in plans.cells(plan, NAMES) if cell.kind == "timing"]
    assert all(one == {"lengths": [128, 512]} for one in settings)  # how often is no part of what is timed


def test_cells_survive_json_and_pickle(plan):
    for cell in plans.cells(plan, NAMES):
        assert pickle.loads(pickle.dumps(cell)) == cell
        restored = Cell(**json.loads(json.dumps(dataclasses.asdict(cell))))
        assert dataclasses.replace(restored, model_files=()) == cell


def test_overrides_replace_and_filter(plan):
    changed = plan.with_overrides(
        models=["mamba2", "transformer"], tasks=["needle"], seeds=[5], size={"depth": 1}, steps=7, device="cuda",
        settings={"mamba2": {"state": 8}, "needle": {"digits": 3}}, dtype="bfloat16", provider="chunked", workers=1,
    )  # fmt: skip
    cells = plans.cells(changed, NAMES)
    assert [(c.kind, c.model) for c in cells] == [("floors", ""), ("training", "mamba2")]
    cell = cells[1]
    assert (cell.settings, cell.seed, cell.size["depth"], cell.size["width"]) == ({"state": 8}, 5, 1, 64)
    assert cell.budget["steps"] == 7 and cell.task_settings["digits"] == 3
    assert (cell.device, cell.dtype, cell.provider, changed.workers) == ("cuda", "bfloat16", "chunked", 1)
    assert plan.tasks[0].name == "language-modelling" and plan.budget["steps"] == 200  # the plan itself is unchanged


def test_processes_that_share_batches_stand_in_the_budget_of_training_cells_alone(plan):
    shared = plans.cells(plan.with_overrides(parallel="ddp", processes=2, tasks=["needle"]), NAMES)
    assert {(c.kind, c.budget.get("parallel"), c.budget.get("processes")) for c in shared} == {
        ("floors", None, None), ("training", "ddp", 2),
    }  # fmt: skip
    alone = plans.cells(plan.with_overrides(tasks=["needle"]), NAMES)
    assert [c.budget for c in alone] == [
        {name: n for name, n in c.budget.items() if name not in ("parallel", "processes")} for c in shared
    ]


def test_a_compiled_run_says_so_in_the_budget_of_trainings_and_the_settings_of_timings(plan):
    made = plans.cells(plan.with_overrides(compile=True), NAMES)
    said = {(c.kind, c.budget.get("compile"), c.task_settings.get("compile")) for c in made}
    assert said == {("floors", None, None), ("training", True, None), ("timing", None, True)}
    assert not any("compile" in {**c.budget, **c.task_settings} for c in plans.cells(plan, NAMES))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"models": ["retnett"]}, r"no model 'retnett'.*did you mean retnet"),
        ({"models": ["zzz"]}, r"no model 'zzz'.*known: transformer, retnet"),
        ({"tasks": ["neddle"]}, r"no task 'neddle'.*did you mean needle"),
        ({"models": ["transformer"], "tasks": ["needle"]}, "Nothing is left to run"),
        ({"settings": {"mamba3": {"state": 1}}}, r"no model 'mamba3'.*did you mean mamba2"),
        ({"size": {"width": 66}}, "width 66 must be a multiple of heads 4"),
        ({"size": {"layers": 2}}, "size has no layers; known: width, depth, heads"),
        ({"steps": 0}, "steps, batch_tokens and micro_batch_tokens must be positive"),
        ({"seeds": []}, "seeds is empty"),
        ({"dtype": "float31"}, "dtype 'float31' is unknown"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"workers": 2**70}, "workers, threads and processes are at most 9223372036854775807"),
        ({"steps": 2**70}, "steps, batch_tokens and micro_batch_tokens are at most"),
        ({"parallel": "zero", "tasks": ["needle"]}, "parallel 'zero' is unknown; known: ddp, fsdp2"),
        ({"parallel": "ddp", "processes": 0, "tasks": ["needle"]}, "processes must be at least 1"),
        ({"processes": 2}, "processes needs parallel: ddp or fsdp2"),
        ({"compile": True, "parallel": "ddp", "tasks": ["needle"]}, "compile is for models that one process trains"),
        ({"parallel": "ddp", "processes": 2}, "timings and side-by-side benchmarks run in one process; choose tasks"),
    ],
)
def test_a_wrong_override_is_one_clear_sentence(plan, override, message):
    with pytest.raises(PlanError, match=message) as caught:
        plans.cells(plan.with_overrides(**override), NAMES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "workers = 2",
            "worker = 2",
            r"plan\.toml: unknown key 'worker' \(did you mean workers\?\); known keys: title",
        ),
        ("workers = 2", "workers = true", "workers must be a whole number, not True"),
        ("workers = 2", 'workers = "2"', "workers must be a whole number, not '2'"),
        ('title = "Quick"', "", "title is missing; add it"),
        ('title = "Quick"', 'title = " "', "title is empty"),
        ('models = ["all"]', "models = []", "models is empty"),
        ('models = ["all"]', 'models = ["gla", "gla"]', "models names 'gla' twice; name it once"),
        ('models = ["all"]', "models = [1]", "each of models must be text, not 1"),
        ('models = ["all"]', 'models = "all"', "models must be a list"),
        ("learning_rate = 3e-3", "learning_rate = -1", "learning_rate must be positive"),
        ("learning_rate = 3e-3", "learning_rate = inf", "learning_rate must be positive"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "seeds must differ"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds must not be negative"),
        ("width = 64", "width = 63", "width 63 must be a multiple of heads 4"),
        ("width = 64", "", r"\[size\] width is missing"),
        ("width = 64", "width = 64\nvocab = 5", r"\[size\] unknown key 'vocab'; known keys: width, depth, heads"),
        ("heads = 4", "heads = 0", "size must be positive"),
        ("batch_tokens = 4096", "batch_tokens = 1.5", "batch_tokens must be a whole number"),
        (
            "batch_tokens = 4096",
            "batch_tokens = 4096\nmicro_batch_tokens = 0",
            "batch_tokens and micro_batch_tokens must be positive",
        ),
        (
            "batch_tokens = 4096",
            "batch_tokens = 4096\nactivation_checkpointing = 1",
            "activation_checkpointing must be true or false, not 1",
        ),
        ("budget = {steps = 300}", "budget = {step = 300}", r"\[\[tasks\]\] \[budget\] unknown key 'step'"),
        ("[settings.mamba2]\nstate = 64", "[settings]\nmamba2 = 3", "mamba2 must be a table"),
        ("[settings.mamba2]\nstate = 64", "[variants]\nlarge = 3", r"\[variants\] large must be a table"),
        ('name = "throughput"', "", r"\[\[timings\]\] name is missing"),
        ('name = "throughput"', 'name = "throughput"\nrounds = 0', r"\[\[timings\]\] rounds is 0; take 1 to 100"),
        ('question = "Who remembers?"', "question = [", "is no TOML"),
    ],
)
def test_a_broken_plan_is_one_sentence_that_names_the_file(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(PlanError, match=message) as caught:
        plans.load(write(tmp_path, GOOD.replace(old, new, 1)))
    assert "plan.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_what_saves_memory_stands_in_the_budget_and_only_where_it_is_asked_for(tmp_path):
    saving = "batch_tokens = 4096\nmicro_batch_tokens = 1024\nactivation_checkpointing = true"
    plan = plans.load(write(tmp_path, GOOD.replace("batch_tokens = 4096", saving)))
    every = {"batch_tokens": 4096, "micro_batch_tokens": 1024, "activation_checkpointing": True}
    budgets = [cell.budget for cell in plans.cells(plan, NAMES) if cell.kind == "training"]
    assert budgets[0] == {"steps": 200} | every and budgets[-1] == {"steps": 300} | every
    off = GOOD.replace("batch_tokens = 4096", "batch_tokens = 4096\nactivation_checkpointing = false")
    assert plans.load(write(tmp_path, off)).budget == {"steps": 200, "batch_tokens": 4096}


def test_a_plan_that_asks_nothing_or_twice_is_refused(tmp_path):
    head = GOOD[: GOOD.index("[[tasks]]")]
    with pytest.raises(PlanError, match="no .*tasks.* and no .*timings"):
        plans.load(write(tmp_path, head))
    with pytest.raises(PlanError, match="stands twice"):
        plans.load(write(tmp_path, head + '[[tasks]]\nname = "needle"\n' * 2))


def test_comparisons_are_the_folders_with_a_plan(tmp_path):
    write(tmp_path, name="smoke")
    write(tmp_path, name="quick")
    (tmp_path / "published").mkdir()
    assert plans.comparisons(tmp_path) == ["quick", "smoke"]
    assert plans.load(tmp_path / "smoke").comparison == "smoke"
    with pytest.raises(PlanError, match="known comparisons: quick, smoke"):
        plans.load(tmp_path / "nope" / "plan.toml")


def test_a_scale_is_a_file_beside_the_plan_with_a_folder_of_its_own(tmp_path):
    write(tmp_path, name="table")
    (tmp_path / "table" / "one-gpu.toml").write_text(GOOD.replace("steps = 200", "steps = 900"))
    large = plans.load(tmp_path / "table" / "one-gpu")
    assert large.comparison == "table/one-gpu" and large.budget["steps"] == 900
    assert plans.load(tmp_path / "table" / "one-gpu.toml") == large
    assert plans.load(tmp_path / "table").comparison == "table"
    assert plans.comparisons(tmp_path) == ["table"] and files.scales(tmp_path / "table") == ["one-gpu"]
    assert {cell.comparison for cell in plans.cells(large, NAMES)} == {"table/one-gpu"}
    with pytest.raises(PlanError, match="table has no scale 'paper'; it has: laptop, one-gpu"):
        plans.load(tmp_path / "table" / "paper")


PRINTED = """
[[printed]]
table = "titans_v1_table2_sniah"
where = { task = "S-NIAH-N", model = ["TTT", "Titans (MAC)"] }
[[figures]]
name = "needle-n"
title = "Number"
task = "needle"
metric = "compact_exact_match"
printed = { table = "titans_v1_table2_sniah", where = { task = "S-NIAH-N" } }
same = { "Mamba2" = "mamba2" }
"""


def test_a_plan_says_whom_figures_show_in_colour(tmp_path):
    assert plans.load(write(tmp_path, GOOD)).show == ()
    assert plans.load(write(tmp_path, f'show = ["mamba2"]\n{GOOD}')).show == ("mamba2",)
    with pytest.raises(PlanError, match=r"show: 'mamab2' is no model of this plan \(did you mean mamba2\?\)"):
        plans.load(write(tmp_path, f'show = ["mamab2"]\n{GOOD}'), NAMES)


def test_a_plan_names_printed_tables_and_figures_in_papers_forms(tmp_path):
    plan = plans.load(write(tmp_path, GOOD + PRINTED))
    assert plan.printed[0].where["task"] == "S-NIAH-N"
    assert plan.figures[0].same == {"Mamba2": "mamba2"} and plan.figures[0].x_scale == "log"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'table = "titans_v1_table2_sniah"\nwhere',
            'table = "titans_table_9"\nwhere',
            "no published table 'titans_table_9'",
        ),
        ('"TTT", ', '"TTT-XL", ', "no row whose model is 'TTT-XL'"),
        ("task =", "tusk =", "no column 'tusk'"),
        ('"Mamba2" = ', '"Mamba9" = ', "same names Mamba9"),
        ('metric = "compact_exact_match"', 'metric = "charm"', "metric 'charm' is not known"),
        ('title = "Number"', 'title = "Number"\nx_scale = "cubic"', "linear or log"),
        ('name = "needle-n"', "", "name is missing"),
    ],
)
def test_printed_tables_and_figures_that_are_not_there_are_refused(tmp_path, old, new, message):
    assert old in PRINTED
    with pytest.raises(PlanError, match=message):
        plans.load(write(tmp_path, GOOD + PRINTED.replace(old, new, 1)))
