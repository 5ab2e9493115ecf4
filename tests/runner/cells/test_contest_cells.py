"""Contests as cells: rows for every candidate, from the plan to the figure, and what is refused before anything is measured."""

from __future__ import annotations

import pytest

import bench
from models import registry
from models.family import OTHERS
from results.plans import reader as plans
from results.rows import store
from runner.build import opponents
from runner.cell_key import identify
from runner.measure import measure

CONTEST = """
title = "Race"
question = "Who is fastest?"
threads = 1
[[contests]]
name = "race"
level = "{level}"
reference = "deltanet"
models = ["deltanet"]
lengths = [32]
sizes = [{{ width = 16, depth = 1, heads = 2 }}]
repeats = 2
[[contests.entrants]]
name = "linear memory"
model = "titans-lmm"
settings = {{ memory_depth = 1 }}
"""
OPPONENTS = """
[[contests.entrants]]
name = "attention"
opponent = "sdpa"
[[contests.entrants]]
name = "gone"
opponent = "open-titans"
"""


def race(results, level, more=""):
    (results / "tiny" / "plan.toml").write_text(CONTEST.format(level=level) + more)
    return plans.cells(plans.load(results / "tiny"), registry.names())[0]


def test_a_contest_of_layers_gives_rows_for_every_entrant(results, monkeypatch):
    monkeypatch.setattr(opponents().comparison, "version", lambda package: "1" if package == "torch" else None)
    rows = measure(race(results, "layer", OPPONENTS), lambda news: None)
    by_name = {}
    for row in rows:
        store.check(row)
        by_name.setdefault(row["settings"]["variant"], {})[row["metric"]] = row
    assert list(by_name) == ["deltanet", "linear memory", "attention", "gone"]
    assert by_name["gone"][""]["status"] == "absent" and "pip install open-titans" in by_name["gone"][""]["reason"]
    for name in ("deltanet", "linear memory", "attention"):
        assert by_name[name]["time_ratio"]["count"] == 2 and by_name[name]["times_the_floor"]["value"] > 0
    lmm = by_name["linear memory"]["time_ratio"]
    assert (lmm["model"], lmm["family"]) == ("titans-lmm", "titans") and lmm["provider"] in ("chunked", "native")
    assert lmm["settings"]["model"] == {"memory_depth": 1} and lmm["where"] == {"length": 32}
    assert by_name["attention"]["time_ratio"]["family"] == OTHERS.name
    assert len({(row["cell"], row["when"]) for row in rows}) == 1


@pytest.mark.parametrize(
    ("direction", "metric"),
    [
        ("training", "training_step_seconds"),
        ("reading", "reading_seconds"),
        ("decoding", "decoding_microseconds_per_token"),
    ],
)
def test_a_contest_of_operations_times_recurrences_and_says_their_errors(results, direction, metric):
    other = '[[contests.entrants]]\nname = "law"\nmodel = "deltanet"\nsettings = { provider = "recurrence" }\n'
    turned = CONTEST.replace("repeats = 2", f'repeats = 2\ndirection = "{direction}"')
    (results / "tiny" / "plan.toml").write_text(turned.format(level="operation") + other)
    rows = measure(plans.cells(plans.load(results / "tiny"), registry.names())[0], lambda news: None)
    by_name = {}
    for row in rows:
        store.check(row)
        by_name.setdefault(row["settings"]["variant"], {})[row["metric"]] = row
    for name in ("deltanet", "linear memory", "law"):
        assert by_name[name][metric]["value"] > 0 and by_name[name]["time_ratio"]["count"] == 2
        assert 0 < by_name[name]["law_error"]["value"] < 1e-5 and "times_the_floor" not in by_name[name]
    assert by_name["law"]["time_ratio"]["provider"] == "recurrence"


def test_an_installed_package_makes_a_contest_run_again(results, monkeypatch):
    cell = race(results, "layer", OPPONENTS)
    before = identify(cell).key
    monkeypatch.setattr(opponents().comparison, "version", lambda package: "9.9")
    assert identify(cell).key != before


def test_a_contest_of_models_runs_from_the_plan_to_the_figure(results, capsys):
    race(results, "model")
    assert bench.main(["run", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert "1 cell measured" in printed and "linear memory" in printed and "x time" in printed
    assert (results / "tiny" / "report" / "figures" / "race-ratio.svg").exists()
    assert bench.main(["run", "tiny"]) == 0 and "1 already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("level", "more", "says"),
    [
        ("layer", '[[contests.entrants]]\nname = "x"\nopponent = "vllm-mamba2"', "of direction 'reading'"),
        ("operation", '[[contests.entrants]]\nname = "x"\nopponent = "open-titans"', "of level 'layer'"),
        ("layer", '[[contests.entrants]]\nname = "x"\nopponent = "sdpaa"', "did you mean sdpa"),
        ("layer", '[[contests.entrants]]\nname = "x"\nopponent = "sdpa"\nsettings = { a = 1 }', "has no setting 'a'"),
        ("layer", '[[contests.entrants]]\nname = "x"\nmodel = "rmt"', "whole language model"),
        ("model", '[[contests.entrants]]\nname = "x"\nmodel = "retnet"\nsettings = { a = 1 }', "no setting 'a'"),
    ],
)
def test_a_wrong_entrant_is_one_sentence_before_anything_is_measured(results, capsys, level, more, says):
    race(results, level, more)
    assert bench.main(["run", "tiny"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_an_external_implementation_without_a_form_of_one_token_is_refused(results, capsys):
    text = CONTEST.format(level="operation").replace("repeats = 2", 'repeats = 2\ndirection = "decoding"')
    other = '[[contests.entrants]]\nname = "x"\nopponent = "fla-delta"\n'
    (results / "tiny" / "plan.toml").write_text(text + other)
    assert bench.main(["run", "tiny"]) == 2
    assert "'fla-delta' has no form of one token" in capsys.readouterr().err
