"""Which difficulty of a pilot passes, and where a run and a report say so."""

from __future__ import annotations

from results.report import evaluations
from results.report.findings import difficulty
from tests.support import synthetic

SHARES = {  # of right answers with 2, 4 and 8 pairs
    "transformer": (1.0, 0.9, 0.31), "retnet": (0.99, 0.5, 0.2), "mamba": (0.9, 0.4, 0.1), "rmt": (0.1, 0.1, 0.1),
}  # fmt: skip
SPEED = [(None, "training_tokens_per_second", 9.0, 1, {})]


def found():
    rows = []
    for model, shares in SHARES.items():
        for pairs, share in zip((2, 4, 8), shares, strict=True):
            for depth in (0.0, 1.0):
                where = {"pairs": pairs, "depth": depth}
                rows.append((model, (None, "accuracy", share, 100, where)))
    made = [
        r for m in SHARES for r in synthetic.rows_of(synthetic.cell(m, "needle"), [one for n, one in rows if n == m])
    ]
    return evaluations.grouped(made + synthetic.rows_of(synthetic.cell("retnet", "throughput", "timing"), SPEED))


def test_the_best_models_must_neither_know_everything_nor_next_to_nothing():
    easy, good, hard = difficulty.difficulties(found())
    assert [one.where for one in (easy, good, hard)] == [{"pairs": 2}, {"pairs": 4}, {"pairs": 8}]
    assert (easy.verdict, good.verdict, hard.verdict) == ("too easy for 2 of 3", "passes", "too hard for 2 of 3")
    assert good.told == "needle, accuracy, pairs 4: passes (best: transformer 90.0, retnet 50.0, mamba 40.0)"


def test_a_difficulty_at_which_the_best_only_guess_does_not_pass():
    """Half of the answers are right without any learning where there are two of them."""
    floors = {"floor: guess": 0.5, "cheat: last value": 0.55}
    rows = synthetic.rows_of(
        synthetic.cell("", "needle", "floors"), [(name, "accuracy", share, 100, {}) for name, share in floors.items()]
    )
    for model, share in {"transformer": 0.9, "retnet": 0.52, "mamba": 0.49}.items():
        rows += synthetic.rows_of(synthetic.cell(model, "needle"), [(None, "accuracy", share, 100, {})])
    [one] = difficulty.difficulties(evaluations.grouped(rows))
    assert one.verdict == "no better than guessing for 2 of 3"


def test_the_report_of_a_pilot_shows_them():
    page = difficulty.markdown(found())
    assert "| needle | accuracy, pairs 4 | transformer 90.0, retnet 50.0, mamba 40.0 | passes |" in page
    assert "between 30 and 95 %" in page
    assert difficulty.markdown([]) == ""
