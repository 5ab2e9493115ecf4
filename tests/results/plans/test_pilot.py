"""A comparison and its pilot: two plans that share no seed."""

from __future__ import annotations

import pytest

from results.plans import reader as plans
from results.plans.method import pilot
from results.plans.reader import PlanError

HEAD = """
title = "T"
question = "?"
models = ["retnet", "transformer"]
learning_rates = [1e-3, 2e-3]
size = "nano"
budget = { steps = 1, batch_tokens = 8 }
"""
TASK = """
[[tasks]]
name = "needle"
"""
PILOT = HEAD + "seeds = [100]\nsearch = { seed = 101 }\nis_pilot = true" + TASK
MAIN = HEAD + "seeds = [0, 1, 2, 3, 4]\nlooks = { most_seeds = 15 }\npilot = 'before'" + TASK


def load(tmp_path, main=MAIN, before=PILOT):
    """The comparison, in a group, with its pilot in another."""
    for group, name, text in (("papers", "main", main), ("own", "before", before)):
        folder = tmp_path / "comparisons" / group / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.toml").write_text(text)
    return plans.load(tmp_path / "comparisons" / "papers" / "main")


def test_a_pilot_on_seeds_of_its_own_is_taken(tmp_path):
    plan = load(tmp_path)
    assert plan.pilot == "before" and not plan.is_pilot
    assert pilot.seeds(plan) == set(range(15))
    assert plans.load(tmp_path / "comparisons" / "own" / "before").is_pilot


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ("seeds = [3, 100, 4]", "(3, 4)"),
        ("seeds = [14]", "(14)"),  # of the third look
        ("seeds = [15]", ""),
    ],
)
def test_a_pilot_that_shares_seeds_is_refused(tmp_path, seeds, says):
    changed = PILOT.replace("seeds = [100]", seeds)
    if not says:
        assert load(tmp_path, before=changed)
        return
    with pytest.raises(PlanError, match="uses seeds of the comparison") as error:
        load(tmp_path, before=changed)
    assert says in str(error.value)


def test_the_seed_of_trials_counts_on_both_sides(tmp_path):
    with pytest.raises(PlanError, match="uses seeds of the comparison"):
        load(tmp_path, before=PILOT.replace("search = { seed = 101 }", ""))  # 0, as by default
    with pytest.raises(PlanError, match="uses seeds of the comparison"):
        load(tmp_path, main=MAIN.replace("looks", "search = { seed = 100 }\nlooks"))


@pytest.mark.parametrize(
    ("main", "before", "says"),
    [
        (MAIN.replace("'before'", "'befor'"), PILOT, "did you mean before"),
        (MAIN, PILOT.replace("is_pilot = true", ""), "without is_pilot = true"),
        (MAIN.replace("pilot =", "is_pilot = true\npilot ="), PILOT, "no pilot of its own"),
        (MAIN, PILOT.replace("is_pilot = true", "is_pilot = 1"), "is_pilot must be true or false"),
    ],
)
def test_a_wrong_pilot_is_one_sentence(tmp_path, main, before, says):
    with pytest.raises(PlanError, match=says):
        load(tmp_path, main, before)
