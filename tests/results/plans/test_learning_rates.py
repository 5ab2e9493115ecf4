"""The learning-rate grid: which trials a plan asks for, which rate they choose, and what the fairness card says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.cell import CHOSEN
from results.plans import learning_rates
from results.plans import reader as plans
from results.plans.reader import PlanError
from results.report import evaluations
from results.report.tables import fairness
from results.rows import row as identity
from results.rows import store
from tests.support.synthetic import VERSIONS, WHEN

NAMES = ["transformer", "retnet"]
PLAN = """
title = "Grid"
question = "Which rate?"
models = ["all"]
seeds = [0, 1, 2]
learning_rates = [4e-3, 1e-3, 2e-3]
search = { fraction = 0.25, seed = 7, widen = 0 }
size = "nano"
[budget]
tokens = 800
batch_tokens = 8
[[tasks]]
name = "needle"
[[tasks]]
name = "babilong"
learning_rate = 5e-3
"""


def load(tmp_path, text=PLAN):
    (tmp_path / "grid").mkdir(exist_ok=True)
    (tmp_path / "grid" / "plan.toml").write_text(text)
    return plans.load(tmp_path / "grid")


def rows_of(cell, measurements, reason=""):
    who = identity.Identity(identity.key(cell), "attention", 0)
    measured = identity.Measured(1000, 10, "trained", "chunked", measurements)
    rows = identity.failure(cell, who, reason) if reason else identity.rows(cell, who, measured)
    return [{**row, "when": WHEN, "versions": VERSIONS, "commit": "0123", "dirty": False} for row in rows]


def trial_rows(cells, losses):
    """Rows of the trials; `losses` by model and rate, None for one that diverged."""
    made = []
    for cell in cells:
        if cell.kind == "trial" and (cell.model, cell.lr) in losses:
            loss = losses[cell.model, cell.lr]
            found = [] if loss is None else [(None, learning_rates.METRIC, loss, 10, cell.where)]
            made += rows_of(cell, found, reason="" if found else "diverged")
    return made


LOSSES = {
    ("transformer", 1e-3): 2.0, ("transformer", 2e-3): 1.5, ("transformer", 4e-3): None,
    ("retnet", 1e-3): 1.0, ("retnet", 2e-3): 1.0, ("retnet", 4e-3): 3.0,
}  # fmt: skip


def test_every_model_gets_the_same_trials_on_one_seed_and_a_share_of_the_budget(tmp_path):
    cells = plans.cells(load(tmp_path), NAMES)
    trials = [cell for cell in cells if cell.kind == "trial"]
    assert cells[: len(trials)] == trials  # they come first
    assert [(c.model, c.lr) for c in trials] == [(m, rate) for m in NAMES for rate in (1e-3, 2e-3, 4e-3)]
    assert {(c.task, c.seed, c.budget["steps"], c.where["full_steps"]) for c in trials} == {("needle", 7, 25, 100)}
    training = [cell for cell in cells if cell.kind == "training"]
    assert {(c.task, c.lr, c.stage) for c in training} == {("needle", 0.0, "chosen"), ("babilong", 5e-3, "")}
    assert len({identity.key(cell) for cell in cells}) == len(cells)


def test_a_model_with_a_rate_of_its_own_is_not_searched(tmp_path):
    own = PLAN.replace('name = "needle"', 'name = "needle"\nlearning_rate_of = { retnet = 7e-3 }', 1)
    own = own.replace("learning_rate = 5e-3", "learning_rate = 5e-3\nlearning_rate_of = { retnet = 9e-3 }")
    cells = plans.cells(load(tmp_path, own), NAMES)
    assert {cell.model for cell in cells if cell.kind == "trial"} == {"transformer"}
    rates = {(c.task, c.model): (c.lr, c.stage) for c in cells if c.kind == "training"}
    assert rates[("needle", "retnet")] == (7e-3, "") and rates[("needle", "transformer")] == (0.0, "chosen")
    assert rates[("babilong", "retnet")] == (9e-3, "") and rates[("babilong", "transformer")] == (5e-3, "")


def test_the_lowest_validation_loss_wins_and_the_lower_of_equal_rates(tmp_path):
    plan = load(tmp_path)
    cells = plans.cells(plan, NAMES)
    settled = learning_rates.chosen(plan.search, cells, trial_rows(cells, LOSSES), identity.key)
    rates = {(c.model, c.seed): c.lr for c in settled if c.stage == CHOSEN}
    assert rates == {("transformer", s): 2e-3 for s in (0, 1, 2)} | {("retnet", s): 1e-3 for s in (0, 1, 2)}
    assert not learning_rates.unsettled(settled)


def test_a_rate_waits_for_all_trials_and_stays_unknown_where_all_failed(tmp_path):
    plan = load(tmp_path)
    cells = plans.cells(plan, NAMES)
    some = {pair: loss for pair, loss in LOSSES.items() if pair != ("retnet", 4e-3)}
    waiting = learning_rates.unsettled(learning_rates.chosen(plan.search, cells, trial_rows(cells, some), identity.key))
    assert {cell.model for cell in waiting} == {"retnet"}
    failed = LOSSES | {(model, rate): None for model, rate in LOSSES if model == "retnet"}
    lost = learning_rates.unsettled(learning_rates.chosen(plan.search, cells, trial_rows(cells, failed), identity.key))
    assert {cell.model for cell in lost} == {"retnet"}


def test_a_wider_grid_keeps_the_trials_and_the_training_that_stand(tmp_path):
    plan = load(tmp_path)
    cells = plans.cells(plan, NAMES)
    before = learning_rates.chosen(plan.search, cells, trial_rows(cells, LOSSES), identity.key)
    wider = load(tmp_path, PLAN.replace("4e-3,", "4e-3, 8e-3,"))
    more = plans.cells(wider, NAMES)
    rows = trial_rows(more, LOSSES | {("transformer", 8e-3): 9.0, ("retnet", 8e-3): 9.0})
    after = learning_rates.chosen(wider.search, more, rows, identity.key)
    assert len(set(map(identity.key, after)) - set(map(identity.key, before))) == 2  # the two trials at 8e-3


def measured(tmp_path, losses=LOSSES, text=PLAN):
    plan = load(tmp_path, text)
    cells = plans.cells(plan, NAMES)
    rows = trial_rows(cells, losses)
    for cell in learning_rates.chosen(plan.search, cells, rows, identity.key):
        if cell.kind == "training":
            rows += rows_of(cell, [(None, "compact_exact_match", 0.5, 10, {}), (None, "training_seconds", 1.0, 1,
                            {"tokens": 800 if cell.model == "retnet" else 808})])  # fmt: skip
    for row in rows:
        store.check(row)
    return evaluations.grouped(rows)


def test_trials_are_no_exam_and_stand_on_the_fairness_card(tmp_path):
    exams = measured(tmp_path)
    assert [exam.task for exam in exams] == ["needle", "babilong"]
    needle, babilong = exams
    assert [model.label for model in needle.learners] == ["retnet", "transformer"]  # a rate of its own is no new line
    assert {label: len(rows) for label, rows in needle.trials.items()} == {"retnet": 3, "transformer": 3}
    assert babilong.trials == {}
    card = fairness.markdown(needle)
    assert "each of 0.001, 0.002, 0.004 tried for 25 steps with seed 7" in card
    assert "| 3 | 0.002 | 0.002 (1.500) | 0.001 (2.000) | 0.004 (failed) |" in card
    assert "| 3 | 0.001 | 0.001 (1.000) | 0.002 (1.000) | 0.004 (3.000) |" in card


def test_the_card_names_each_deviation(tmp_path):
    needle, babilong = measured(tmp_path)
    said = "\n".join(fairness.deviations(needle))
    assert "learning rate: at the lowest of their grid, so that a better one may lie beyond: retnet (0.001)\n" in said
    assert "highest" not in said
    assert "0.004 of transformer failed in its trial (diverged)" in said
    assert "tokens: 800 for retnet; 808 for transformer" in said
    assert "parameters" not in said and "hardly differ" not in said
    assert "learning rate" not in "\n".join(fairness.deviations(babilong))
    assert fairness.deviations(needle, "mamba")[0] == (
        "parameters: mamba has no row here to be compared with; the models lie within 0.0 % of one another"
    )


LONGER = """
[variants.transformer-ntk]
model = "transformer"
scaling = "ntk"
[variants.transformer-wide]
model = "transformer"
width = 9
"""


def test_settings_of_the_exam_alone_take_the_rate_of_the_model_without_them(tmp_path):
    text = PLAN.replace('["all"]', '["all", "transformer-ntk", "transformer-wide"]') + LONGER
    plan = load(tmp_path, text)

    def as_trained(cell):
        kept = {name: value for name, value in cell.settings.items() if name != "scaling"}
        return cell if kept == cell.settings else replace(cell, settings=kept, variant="")

    cells = plans.cells(plan, NAMES, as_trained)
    trials = [cell for cell in cells if cell.kind == "trial"]
    assert [(c.model, c.variant) for c in trials[::3]] == [
        ("transformer", ""), ("retnet", ""), ("transformer", "transformer-wide")
    ]  # fmt: skip
    rows = [row for row in trial_rows(cells, LOSSES) if "variant" not in row["settings"]]
    wide = [cell for cell in trials if cell.variant]
    rows += [row for c in wide for row in rows_of(c, [(None, learning_rates.METRIC, 9 - c.lr, 10, c.where)])]
    settled = learning_rates.chosen(plan.search, cells, rows, identity.key, as_trained)
    rates = {(c.variant or c.model): c.lr for c in settled if c.stage == CHOSEN}
    assert rates == {"transformer": 2e-3, "transformer-ntk": 2e-3, "transformer-wide": 4e-3, "retnet": 1e-3}
    for cell in settled:
        rows += rows_of(cell, [(None, "accuracy", 0.5, 10, {})]) if cell.stage == CHOSEN else []
    (needle,) = evaluations.grouped(rows)
    assert needle.trials["transformer-ntk"] == needle.trials["transformer"] != needle.trials["transformer-wide"]
    assert not any("trials" in one for one in fairness.deviations(needle) if "number" in one)


def test_trials_that_end_alike_are_named(tmp_path):
    plateau = {(model, rate): 1.83 + rate for model, rate in LOSSES}
    needle, _ = measured(tmp_path, plateau | {("retnet", 4e-3): 1.9})
    said = [one for one in fairness.deviations(needle) if "hardly differ" in one]
    assert said == [
        "learning rate: chosen by next to nothing, as the losses of the trials hardly differ: transformer (1.831 to 1.834)"
    ]


@pytest.mark.parametrize(
    ("trials", "end", "is_named"),
    [((2.3, 2.0, 2.2), 0.5, True), ((2.3, 0.9, 2.0), 0.5, False), ((2.3, 2.0, 2.2), 1.9, False)],
)
def test_rates_chosen_before_learning_set_in_are_named(tmp_path, trials, end, is_named):
    """At 2.0 a training that ends at 0.5 had learned nothing yet; rates a tenth apart there say nothing of who learns."""
    losses = {("retnet", rate): loss for rate, loss in zip((1e-3, 2e-3, 4e-3), trials, strict=True)}
    needle, _ = measured(tmp_path, losses | {pair: 2.0 * 1000 * pair[1] for pair in LOSSES if pair[0] == "transformer"})
    row = next(row for row in needle.rows["retnet"] if row["status"] == "ok")
    needle.rows["retnet"].append({**row, "metric": "training_loss", "value": end, "where": {}})
    said = [one for one in fairness.deviations(needle) if "before learning set in" in one]
    assert (
        said
        == [
            "learning rate: chosen before learning set in, which trials as short cannot foretell: "
            f"retnet ({min(trials):.3f} at best, {end:.3f} at the end of training)"
        ]
        * is_named
    )


def test_a_model_that_did_not_learn_lacks_budget_and_not_a_rate(tmp_path):
    plateau = {(model, rate): 1.83 + rate for model, rate in LOSSES}
    needle, _ = measured(tmp_path, plateau)
    rows = [row for own in needle.rows.values() for row in own]
    floor = next(cell for cell in plans.cells(load(tmp_path), NAMES) if cell.kind == "floors" and cell.task == "needle")
    rows += rows_of(floor, [("floor: guess", "compact_exact_match", 0.5, 10, {})])
    again = next(exam for exam in evaluations.grouped(rows) if exam.task == "needle")
    again.trials = needle.trials
    said = [one for one in fairness.deviations(again) if "plateau" in one]
    assert said == [
        "learning rate: did not learn, for lack of budget and not of a rate, since all trials ended on one plateau: "
        "retnet (1.831 to 1.834), transformer (1.831 to 1.834)"
    ]
    assert not any("hardly differ" in one for one in fairness.deviations(again))


def test_of_two_trials_there_is_no_median(tmp_path):
    two = {pair: loss for pair, loss in LOSSES.items() if pair[1] != 2e-3}
    needle, _ = measured(tmp_path, two, PLAN.replace(", 2e-3]", "]"))
    assert "| 2 | 0.001 | 0.001 (1.000) |  | 0.004 (3.000) |" in fairness.markdown(needle)


def test_a_gap_beyond_the_tolerance_is_named(tmp_path):
    needle, _ = measured(tmp_path)
    rows = [row | {"parameters": 1060 if row["model"] == "retnet" else 1000} for r in needle.rows.values() for row in r]
    assert "parameters: retnet has +6.0 %, beyond the tolerance of 5 %" in fairness.deviations(
        evaluations.grouped(rows)[0]
    )
    large = [row | {"parameters": 10_200_000 if row["model"] == "retnet" else 10_000_000} for row in rows]
    assert any(
        "+2.0 %, beyond the tolerance of 1 %" in one for one in fairness.deviations(evaluations.grouped(large)[0])
    )
    small = [row | {"parameters": row["parameters"] // 10_000} for row in large]
    assert not any("tolerance" in one for one in fairness.deviations(evaluations.grouped(small)[0]))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("learning_rates", "learning_rate = 1e-3\nlearning_rates", "stand side by side"),
        ("[4e-3, 1e-3, 2e-3]", "[1e-3]", "at least two different rates"),
        ("[4e-3, 1e-3, 2e-3]", "[1e-3, -1e-3]", "positive and finite"),
        ("fraction = 0.25", "fraction = 2.0", "0 < fraction <= 1"),
        ("widen = 0", "widen = -1", "widen from 0 to 20"),
        ("fraction = 0.25", "share = 0.25", "unknown key 'share'"),
        ("learning_rates = [4e-3, 1e-3, 2e-3]", "learning_rate = 1e-3", "search needs learning_rates"),
        ("tokens = 800\n", "", "either steps or tokens"),
        ("tokens = 800", "tokens = 800\nsteps = 3", "either steps or tokens"),
        ('size = "nano"', 'size = "huge"', "no size 'huge'; known: nano"),
        ("learning_rate = 5e-3", "learning_rate_of = { retnet = -1.0 }", "positive and finite"),
        ("learning_rate = 5e-3", "learning_rate_of = { retnet = true }", "retnet must be a number"),
        (
            "learning_rate = 5e-3",
            "learning_rate_of = { retnett = 1e-3 }",
            r"no model 'retnett' \(learning_rate_of in .*did you mean",
        ),
    ],
)
def test_a_wrong_grid_budget_or_size_is_one_sentence(tmp_path, old, new, says):
    with pytest.raises(PlanError, match=says):
        plans.cells(load(tmp_path, PLAN.replace(old, new, 1)), NAMES)
