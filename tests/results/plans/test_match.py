"""A plan that matches state or FLOPs: its cells and keys, and what card and forecast say of each model."""

from __future__ import annotations

import pytest
from rich.console import Console

from results.plans import reader as plans
from results.plans.reader import PlanError
from results.report import evaluations
from results.report.tables import fairness
from results.rows import row as identity
from results.rows import store
from runner.schedule.forecast import Cost, forecast, matched
from schema.terms import MatchReport
from tests.support.synthetic import VERSIONS, WHEN

NAMES = ["transformer", "retnet", "mine"]
PLAN = """
title = "Equal"
question = "Who remembers with as much?"
models = ["all"]
seeds = [0]
learning_rate = 1e-3
size = "nano"
budget = { steps = 10, batch_tokens = 64 }
[[tasks]]
name = "needle"
"""
STATE, FLOPS = 'match = "state"\nstate_bytes = 1000\n', 'match = "flops"\nflops_length = 128\n'
CONTEST = '[[contests]]\nname = "race"\nlevel = "model"\nreference = "retnet"\nmodels = ["retnet"]\nlengths = [8]\n'


def load(tmp_path, first: str = "", last: str = ""):
    (tmp_path / "plan.toml").write_text(first + PLAN + last)
    return plans.load(tmp_path)


def exam(
    plan, parameters: dict[str, int], states: dict[str, int], flops: dict[str, float | None]
) -> evaluations.EvaluationBatch:
    rows = []
    for cell in plans.cells(plan, NAMES):
        if cell.kind == "training":
            found = [(None, "compact_exact_match", 0.5, 10, {}), (None, "training_seconds", 1.0, 1, {"tokens": 640})]
            if flops.get(cell.model) is not None:
                where = {"length": 128, "aim": flops["transformer"]}
                found.append((None, "matched_flops_per_token", flops[cell.model], 1, where))
            measured = identity.Measured(parameters[cell.model], states[cell.model], "trained", "chunked", found)
            rows += identity.rows(cell, identity.Identity(identity.key(cell), "attention", 0), measured)
    rows = [{**row, "when": WHEN, "versions": VERSIONS, "commit": "0123", "dirty": False} for row in rows]
    for row in rows:
        store.check(row)
    (found,) = evaluations.grouped(rows)
    return found


EVEN = dict.fromkeys(NAMES, 1000)


def test_parameters_are_the_default_and_enter_no_key(tmp_path):
    plain, said = (plans.cells(load(tmp_path, first), NAMES) for first in ("", 'match = "parameters"\n'))
    assert plain == said
    assert {frozenset(cell.size) for cell in plain if cell.model} == {frozenset({"width", "depth", "heads"})}


@pytest.mark.parametrize(
    ("first", "adds"),
    [(STATE, {"match": "state", "state_bytes": 1000}), (FLOPS, {"match": "flops", "flops_length": 128})],
)
def test_a_match_is_part_of_a_cells_size_key_and_rows(tmp_path, first, adds):
    plain, matched = (plans.cells(load(tmp_path, text), NAMES) for text in ("", first))
    for before, after in zip(plain, matched, strict=True):
        assert after.size == (before.size | adds if after.model else {})
        assert (identity.key(before) == identity.key(after)) == (not after.model)
    cell = matched[-1]
    (row,) = identity.failure(cell, identity.Identity(identity.key(cell)), "none")
    assert identity.key_of_row(row, {}) == identity.key(cell)


def test_a_size_from_the_command_line_keeps_the_match(tmp_path):
    plan = load(tmp_path, STATE).with_overrides(size={"depth": 1})
    assert plans.cells(plan, NAMES)[-1].size["state_bytes"] == 1000


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        ('match = "weights"\n', "", "match 'weights' is unknown; choose parameters, state or flops"),
        ('match = "state"\n', "", "with match = 'state', state_bytes is missing"),
        (STATE.replace("1000", "0"), "", "state_bytes must be at least 1, not 0"),
        (FLOPS.replace("128", "1.5"), "", "flops_length must be a whole number"),
        ("state_bytes = 1000\n", "", "state_bytes is for match = 'state'; write that, or remove state_bytes"),
        (STATE + "flops_length = 8\n", "", "flops_length is for match = 'flops'"),
        (FLOPS, CONTEST, "match = 'flops' is for .*, side-by-side benchmarks .* match parameters; give them a plan"),
    ],
)
def test_a_wrong_match_is_one_sentence(tmp_path, first, last, says):
    with pytest.raises(PlanError, match=says):
        load(tmp_path, first, last)


def test_card_of_a_parameter_match_says_nothing_more(tmp_path):
    card = fairness.markdown(exam(load(tmp_path), EVEN, EVEN, {}))
    assert "matched" not in card
    assert "| model | parameters | to transformer | tokens |" in card


def test_card_of_a_state_match_names_who_is_beyond(tmp_path):
    states = {"transformer": 9000, "retnet": 1080, "mine": 780}
    found = exam(load(tmp_path, STATE), EVEN | {"retnet": 1060}, states, {})
    card = fairness.markdown(found)
    assert "matched by 1,000 bytes of state for one row, within 20 %, and then parameters" in card
    assert "| model | parameters | to transformer | bytes of state | to 1000 B |" in card
    assert "| retnet | 1,060 | +6.0 % | 1.1 KiB | +8.0 % |" in card
    assert fairness.deviations(found) == [
        "parameters: retnet has +6.0 %, beyond the tolerance of 5 %",
        "state bytes: mine has -22.0 %, beyond the tolerance of 20 %",
        "state bytes: transformer has +800.0 %, beyond the tolerance of 20 %",
    ]


def test_card_of_a_flops_match_lets_parameters_float(tmp_path):
    flops = {"transformer": 5e5, "retnet": 5.3e5, "mine": None}
    found = exam(load(tmp_path, FLOPS), EVEN | {"retnet": 1500}, EVEN, flops)
    card = fairness.markdown(found)
    assert "matched by the transformer's training FLOPs per token at 128 tokens, within 5 % (1 % from 10M" in card
    assert "| retnet | 1,500 | +50.0 % | 530,000 | +6.0 % |" in card
    assert "| mine | 1,000 | +0.0 % | no formula |  |" in card
    assert fairness.deviations(found) == [
        "training FLOPs: mine has no formula of them, so it keeps its parameter match",
        "training FLOPs: retnet has +6.0 %, beyond the tolerance of 5 %",
    ]
    large = exam(load(tmp_path, FLOPS), dict.fromkeys(NAMES, 10_000_000), EVEN, flops | {"retnet": 5.1e5, "mine": 5e5})
    assert fairness.deviations(large) == ["training FLOPs: retnet has +2.0 %, beyond the tolerance of 1 %"]


def printed(plan, reports) -> str:
    console = Console(width=250, record=True, file=open("/dev/null", "w"))
    known = lambda cell: Cost(match_report=reports.get(cell.model))  # noqa: E731
    cells = plans.cells(plan, NAMES)
    table, line = forecast(plan, cells, lambda cell: None, [], known)
    console.print(table, *filter(None, [matched(plan, cells, known)]), line)
    return " ".join(console.export_text().replace("│", " ").replace("┃", " ").split())


def test_forecast_prints_figures_and_distances(tmp_path):
    reports = {"retnet": MatchReport(1010, 1000, 1050, 1000), "transformer": MatchReport(1000, 1000, None, 1000)}
    said = printed(load(tmp_path, STATE), reports)
    assert "parameters to transformer bytes of state to 1000 B" in said
    assert "1,010 +1.0 % 1.0 KiB +5.0 %" in said and "1,000 +0.0 % grows" in said
    assert "; matched by 1,000 bytes of state" in said
    work = printed(load(tmp_path, FLOPS), {"retnet": MatchReport(1500, 1000, 5.1e5, 5e5)})
    assert "1,500 +50.0 % 510,000 +2.0 %" in work
    assert "matched" not in printed(load(tmp_path), {})


def test_the_card_says_under_which_settings_a_model_was_measured(tmp_path):
    """Of a hybrid, its layers are what it is; a variant's name says nothing of it."""
    assert "Settings beside" not in fairness.markdown(exam(load(tmp_path), EVEN, EVEN, {}))
    settings = '[settings.mine]\nlayers = ["mamba*2", "retnet"]\nproud = true\n'
    load(tmp_path, last=settings + '[variants.narrow]\nmodel = "retnet"\ninner = 8\n')
    file = tmp_path / "plan.toml"
    file.write_text(file.read_text().replace('["all"]', '["all", "narrow"]'))
    plan = plans.load(tmp_path)
    card = fairness.markdown(exam(plan, EVEN, EVEN, {}))
    assert "- mine: layers = mamba*2, retnet; proud = true" in card and "- narrow: retnet, inner = 8" in card
    assert "- transformer:" not in card.split("Settings beside a model's own:")[1]
