"""Every committed plan, at every scale: it loads, its models can be built, and what it names is there."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import pytest
import torch

import baselines  # noqa: F401  fills the registry
import bench
import tasks
from models import language_model, registry
from models.language_model import Size
from results.plans import files
from results.plans import reader as plans
from results.plans.entries import TaskEntry
from results.plans.reader import Plan
from results.rows import published
from schema.places import ROOT
from tasks.synthetic.symbol_task import SymbolTask

RESULTS = ROOT / "results"
folder_of = partial(files.folder_of, RESULTS)
PAPERS = (
    "titans-table1", "titans-table2", "titans-fig6", "titans-fig7", "titans-fig9", "titans-ablation", "gdn-table2", "gdn-fig3",
    "rmt-babilong", "mqar-capacity",
)  # fmt: skip
FILES = sorted(RESULTS.glob("comparisons/*/*/*.toml"))
COMMITTED = sorted(  # by name, /SCALE behind it
    path.parent.relative_to(RESULTS / "comparisons").as_posix().partition("/")[2]
    for path in RESULTS.rglob("reference")
    if path.is_dir()
)
SMALL = {
    "language-modelling": {"length": 64, "test_bytes": 2048},
    "babilong": {"questions": ["qa1"], "length": 128, "test_lengths": [128], "samples": 2},
    "mqar": {"pairs": [2], "length": 16, "vocab": 16, "samples": 2},
    "needle": {"variants": ["s-niah-1"], "test_lengths": [128], "depths": [0.5], "samples": 2},
    "zero-shot-needle": {"variants": ["s-niah-1"], "length": 1024, "test_lengths": [1024], "depths": [0.5], "samples": 2},
    "few-shot-babilong": {"questions": ["qa1"], "length": 64, "test_lengths": [1024], "samples": 2},
    **dict.fromkeys(
        ("selective-copying", "state-tracking", "modular-arithmetic", "forgetting", "overflow", "flow", "nonlinear-recall"),
        {"samples": 2},
    ),
}  # fmt: skip
LARGE = ("one-gpu", "one-gpu-quick", "paper")
BUILT: set[tuple[str, str, str]] = set()  # plans share many models
TIMES = {"training_tokens_per_second", "prefill_tokens_per_second", "decoding_milliseconds_per_token"}


def name(file: Path) -> str:
    return plans.load(file).comparison


@pytest.mark.parametrize("comparison", PAPERS)
def test_every_paper_comparison_has_its_scales(comparison: str):
    assert files.scales(folder_of(comparison)) == list(LARGE)
    folder = folder_of(comparison)
    laptop, others = plans.load(folder), [plans.load(folder / scale) for scale in LARGE]
    assert laptop.device == "cpu" and all(one.device == "cuda" for one in others)
    assert {one.question for one in others} == {laptop.question}
    assert all(one.claims for one in (laptop, *others))
    assert not laptop.tasks or (laptop.search and len(laptop.seeds) >= 3)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_plan_names_models_tasks_settings_and_metrics_that_exist(file: Path):
    plan = plans.load(file)
    cells = plans.cells(plan, registry.names())
    labels = {cell.variant or cell.model for cell in cells}
    for claim in plan.claims:
        assert {claim.better, claim.worse} <= labels, claim.text
        entries = [entry for entry in (*plan.tasks, *plan.timings) if entry.name == claim.task]
        assert claim.metric in metrics_of(claim.task, entries[0].settings.get("template", "")), claim.text
        asking = [entry for entry in entries if asks(entry, claim.where)]
        assert any(set(claim.models) <= set(entry.models or labels) for entry in asking), claim.text
    for form in plan.figures:
        assert set(form.same.values()) <= labels and set(form.models) <= labels
        entries = [entry for entry in (*plan.tasks, *plan.timings) if entry.name == form.task]
        assert form.metric in metrics_of(form.task, entries[0].settings.get("template", ""))
        assert any(asks(entry, form.where) for entry in entries), form.name
    for one in plan.printed:
        assert one.table in published.names() and published.protocol(one.table) != "not stated", one.table


@pytest.mark.parametrize("comparison", PAPERS)
def test_the_models_of_a_laptop_plan_can_be_built(comparison: str):
    build(plans.load(folder_of(comparison)))


@pytest.mark.slow
@pytest.mark.parametrize("scale", LARGE)
@pytest.mark.parametrize("comparison", PAPERS)
def test_the_models_of_a_large_plan_can_be_built(comparison: str, scale: str):
    build(plans.load(folder_of(comparison) / scale))


@pytest.mark.parametrize("comparison", [one for one in PAPERS if plans.load(folder_of(one)).tasks])
def test_the_tasks_of_a_laptop_plan_can_be_set(comparison: str):
    for entry in plans.load(folder_of(comparison)).tasks:
        task = tasks.create(entry.name, **entry.settings)
        assert task.training(0, 0, 0.0, entry.budget.get("batch_tokens", 1024)).tokens.shape[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("comparison", COMMITTED)
def test_committed_rows_hold_against_their_predictions(comparison: str, capsys):
    assert bench.main(["verify", comparison, "--reference"]) == 0, capsys.readouterr().out


def build(plan: Plan) -> None:
    """Each model under each of its settings once, without memory."""
    for cell in plans.cells(plan, registry.names()):
        key = (cell.model, repr(cell.settings), repr(cell.size))
        if cell.model and key not in BUILT:
            BUILT.add(key)
            with torch.device("meta"):
                language_model.build(cell.model, Size(256, **cell.size), **cell.settings)


@cache
def metrics_of(task: str, template: str) -> set[str]:
    """What a task measures: the marks of somebody who knows."""
    if task == "throughput":
        return TIMES
    own = {"template": template} if "needle" in task and template else {}
    own |= {"length": 1024, "test_lengths": [1024]} if template == "ruler" else {}
    made = tasks.create(task, **{**SMALL[task], **own})
    marks = [m for exam in made.exams("test") for m in made.mark(exam, made.oracle(exam))]
    return {m.metric for m in made.finish(marks)}


def asks(entry: TaskEntry, where: dict) -> bool:
    """Whether a task under an entry's settings has a place for what a claim or a figure looks at."""
    if issubclass(tasks.classes().get(entry.name, object), SymbolTask):
        return any(where.items() <= cell.items() for cell in tasks.create(entry.name, **entry.settings).cells("test"))
    kinds = {
        "length": ("test_lengths", "lengths"),
        "variant": ["variants"],
        "question": ["questions"],
    }
    return all(any(value in entry.settings.get(key, ()) for key in kinds[one]) for one, value in where.items())
