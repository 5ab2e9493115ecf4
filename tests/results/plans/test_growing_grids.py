"""Grids of learning rates that grow while an edge wins: for whom, how far, and after a search that was broken off."""

from __future__ import annotations

from results.cell import CHOSEN
from results.plans import learning_rates
from results.plans import reader as plans
from results.rows import row as identity
from tests.results.plans.test_learning_rates import LOSSES, NAMES, PLAN, load, rows_of, trial_rows


def searched(plan, loss, compared=()):
    """The cells of a plan whose trials have the losses that `loss` gives for model and rate, once nothing is asked any more."""
    cells, rows = plans.cells(plan, NAMES), []
    asked = [cell for cell in cells if cell.kind == "trial"]
    for _ in range(30):
        rows += [r for c in asked for r in rows_of(c, [(None, learning_rates.METRIC, loss(c), 10, c.where)])]
        settled = learning_rates.chosen(plan.search, cells, rows, identity.key, compared=compared)
        there = {row["cell"] for row in rows}
        asked = [cell for cell in settled if cell.kind == "trial" and identity.key(cell) not in there]
        if not asked:
            return settled
    raise AssertionError("the search does not end")


def grids(settled):
    """The rates that each model was tried at, and the one that it is trained at."""
    tried = {name: sorted(c.lr for c in settled if (c.kind, c.model) == ("trial", name)) for name in NAMES}
    return tried, {c.model: c.lr for c in settled if c.stage == CHOSEN}


def test_a_grid_grows_while_an_edge_wins_for_those_that_a_claim_compares(tmp_path):
    plan = load(tmp_path, PLAN.replace("widen = 0", "widen = 3"))

    def loss_of(cell):  # attention wants 8e-3, retnet 2e-3
        return 1 + 100 * abs(cell.lr - (8e-3 if cell.model == "transformer" else 2e-3))

    alone, rates = grids(searched(plan, loss_of))
    assert alone == {"retnet": [1e-3, 2e-3, 4e-3], "transformer": [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]}
    assert rates == {"retnet": 2e-3, "transformer": 8e-3}
    together, same = grids(searched(plan, loss_of, [("needle", ("retnet", "transformer"))]))
    assert together["retnet"] == together["transformer"] == alone["transformer"] and same == rates
    elsewhere, _ = grids(searched(plan, loss_of, [("babilong", ("retnet", "transformer"))]))
    assert elsewhere == alone


def test_a_grid_grows_no_further_than_the_plan_lets_it_and_not_on_a_plateau(tmp_path):
    plan = load(tmp_path, PLAN.replace("widen = 0", "widen = 2"))
    tried, rates = grids(searched(plan, lambda cell: 1 + 1000 * cell.lr))
    assert tried["retnet"] == [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3] and rates["retnet"] == 2.5e-4
    assert grids(searched(plan, lambda cell: 1.83 + cell.lr))[0]["retnet"] == [1e-3, 2e-3, 4e-3]


def test_a_search_that_is_broken_off_asks_for_what_is_missing(tmp_path):
    plan = load(tmp_path, PLAN.replace("widen = 0", "widen = 1"))
    cells = plans.cells(plan, NAMES)
    rows = trial_rows(
        cells, {pair: loss for pair, loss in LOSSES.items() if pair[0] == "retnet"}
    )  # best at 1e-3, the edge
    settled = learning_rates.chosen(plan.search, cells, rows, identity.key)
    assert [(c.model, c.lr) for c in settled[: -len(cells)]] == [("retnet", 5e-4)]
    assert {cell.model for cell in learning_rates.unsettled(settled)} == {"retnet", "transformer"}
    together = [("needle", ("retnet", "transformer"))]  # attention's trials may yet move the other edge
    assert len(learning_rates.chosen(plan.search, cells, rows, identity.key, compared=together)) == len(cells)
