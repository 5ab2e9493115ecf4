"""The measuring stick itself, without any other package: what compare() sees, and what the ledger says."""

from __future__ import annotations

import functools
import math
import types

import pytest
import torch

import bench
from baselines.oracles.parity import ledger as book
from baselines.oracles.parity import ledger_rows
from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, compare_forms
from baselines.oracles.parity.hugging_face import torch_only
from models import registry
from schema.places import ROOT

DOCUMENT = ROOT / "docs" / "parity.md"
LEDGER = ROOT / "baselines" / "oracles" / "parity" / "ledger.jsonl"
LISTED = "retnet mamba mamba2 gla deltanet gated-deltanet ttt-linear ttt-mlp rmt transformer".split()


def product(a, b):
    return a @ b


def inputs():
    draw = Draw()
    return {"a": draw.normal(4, 5), "b": draw.normal(5, 3)}


def test_equal_sides_differ_by_nothing():
    assert compare(product, product, inputs()) == (0.0, 0.0)


def test_error_is_relative_to_the_oracle():
    errors = compare(lambda a, b: 1.5 * (a @ b), product, inputs())
    assert errors == pytest.approx((0.5, 0.5))


def test_wrong_gradient_behind_a_right_output_is_seen():
    errors = compare(lambda a, b: a @ b + (a.detach() - a).sum() * 0.1, product, inputs())
    assert errors.forward < 1e-6 < 0.01 < errors.backward


def test_second_output_counts():
    errors = compare(lambda a, b: (a @ b, 2 * a), lambda a, b: (a @ b, a), inputs())
    assert errors.forward == pytest.approx(1.0)


def test_a_package_that_lacks_another_is_a_row_with_the_reason_and_the_others_stay(monkeypatch):
    def broken() -> Errors:
        raise ModuleNotFoundError("No module named 'urllib3'")

    two = (
        Comparison("retnet", "torch", "all", broken),
        Comparison("retnet", "torch", "half", lambda: Errors(0.0, 0.0)),
    )
    monkeypatch.setattr(book, "COMPARISONS", two)
    lacking, whole = book.ledger(["retnet"])
    assert lacking.forward is None and "No module named 'urllib3'" in lacking.reason and "pip install" in lacking.reason
    assert whole.forward == 0.0


def test_nan_never_passes():
    errors = compare(lambda a, b: (a @ b, a * float("nan")), lambda a, b: (a @ b, a), inputs())
    assert math.isnan(errors.forward)
    assert book.LedgerRow("m", forward=errors.forward, backward=0.0, bound=1.0).failed


def test_input_that_reaches_no_output_is_refused():
    with pytest.raises(RuntimeError, match="not have been used"):
        compare(lambda a, b: a, lambda a, b: a, inputs())


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        compare(lambda a, b: (a @ b)[:, :1], product, inputs())


@pytest.mark.parametrize("right", ["recurrence", "chunked"])
def test_worse_form_counts(right):
    """One form right and one wrong must read as wrong, whichever comes first."""
    q, k, v = (Draw(seed).normal(1, 70, 2, 4) for seed in range(3))

    def ours(form, q, k, v):
        return form(q, k, v)[0] * (1.0 if form.__name__ == right else 2.0)

    def theirs(q, k, v):
        return torch.einsum("bthd,bshd,bshe,ts->bthe", q, k, v, torch.ones(70, 70).tril())

    assert compare_forms("scan", ours, theirs, {"q": q, "k": k, "v": v}).forward == pytest.approx(1.0, abs=1e-4)


def test_torch_only_takes_dispatching_functions_back():
    """As on a machine with Triton, where transformers' functions would call fla's kernels."""
    module = types.ModuleType("modelling")

    def scan(x):
        return f"PyTorch {x}"

    @functools.wraps(scan)
    def dispatched(x):
        return f"kernel {x}"

    def from_elsewhere(x):
        return x

    scan.__module__ = dispatched.__module__ = "modelling"
    module.scan, module.other = dispatched, functools.wraps(from_elsewhere)(lambda x: x)
    kept = module.other
    with torch_only(module):
        assert module.scan(1) == "PyTorch 1"
        assert module.other is kept
    assert module.scan(1) == "kernel 1"


def test_same_weights_every_time():
    item = Comparison("m", "p", "c", lambda: Errors(torch.rand(()).item(), 0.0))
    before = torch.random.get_rng_state()
    assert item.run() == item.run()
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_model_of_the_list_has_an_oracle():
    assert set(LISTED) <= {item.model for item in book.COMPARISONS}
    assert not set(book.NO_ORACLE) & {item.model for item in book.COMPARISONS}
    assert {item.package for item in book.COMPARISONS} == set(book.INSTALL)


def test_absent_package_is_a_reason_not_a_figure(monkeypatch):
    monkeypatch.setattr(book, "version", lambda package: None)
    rows = book.ledger()
    assert {row.model for row in rows} >= set(registry.names()) | set(LISTED)
    assert all(row.reason and row.forward is None and not row.failed for row in rows)
    assert "fla-core is not installed" in next(row.reason for row in rows if row.model == "gla")


def test_figures_reach_the_row(monkeypatch):
    item = Comparison("retnet", "a-package", "a scan", lambda: Errors(1e-7, 3e-4))
    monkeypatch.setattr(book, "COMPARISONS", (item,))
    monkeypatch.setattr(book, "version", lambda package: "1.2")
    (row,) = book.ledger(["retnet"])
    assert row == book.LedgerRow("retnet", "a-package", "1.2", "a scan", 1e-7, 3e-4, 1e-5)
    assert row.failed
    page = book.markdown([row, book.LedgerRow("titans-mac", reason="a | reason")])
    assert "| retnet | a-package 1.2 | a scan | 1e-07 | 3e-04 (FAILS) |" in page
    assert "| titans-mac |  | a \\| reason | - | - |" in page


def test_unknown_model_is_refused():
    with pytest.raises(ValueError, match="Unknown model 'retnets'"):
        book.ledger(["retnets"])


@pytest.mark.parametrize("backward, code", [(1e-7, 0), (1e-3, 1)])
def test_hall_prints_the_ledger_and_its_verdict(monkeypatch, capsys, backward, code):
    monkeypatch.setattr(
        book, "ledger", lambda models=None: [book.LedgerRow("retnet", "p", "1", "scan", 1e-7, backward, 1e-5)]
    )
    assert bench.main(["check", "--parity"]) == code
    assert f"1 comparison(s) made, {code} failed" in capsys.readouterr().out
    assert bench.main(["check", "--parity", "--markdown"]) == code
    assert "| retnet | p 1 | scan |" in capsys.readouterr().out


def test_hall_asks_what_to_check(capsys):
    assert bench.main(["check"]) == 2
    assert "Say what to check" in capsys.readouterr().err


def test_committed_page_holds_every_comparison_and_no_failure():
    page = DOCUMENT.read_text(encoding="utf-8")
    for item in book.COMPARISONS:
        line = next(
            line for line in page.splitlines() if line.startswith(f"| {item.model} |") and item.compared in line
        )
        assert item.package in line and ("e-" in line or "0e+00" in line)
    assert "FAILS" not in page.partition("| --- |")[2]
    assert page == book.markdown(ledger_rows.read(LEDGER))


def test_obstacle_is_a_reason_not_a_figure(monkeypatch):
    item = Comparison("retnet", "a-package", "a scan", lambda: Errors(1e-7, None), obstacle=lambda: "needs a device")
    monkeypatch.setattr(book, "COMPARISONS", (item,))
    monkeypatch.setattr(book, "version", lambda package: "1.2")
    (row,) = book.ledger(["retnet"])
    assert row == book.LedgerRow("retnet", "a-package", compared="a scan", reason="needs a device")


@pytest.mark.parametrize("forward, failed", [(1e-7, False), (1e-4, True), (float("nan"), True)])
def test_comparison_without_a_gradient_is_judged_by_its_output(forward, failed):
    row = book.LedgerRow("m", "p", "1", "one token", forward, None, 1e-5)
    assert row.failed is failed
    assert book.figures(row)[-1].startswith("none")


def test_rows_of_two_environments_make_one_ledger(tmp_path):
    file = tmp_path / "rows.jsonl"
    first = [
        book.LedgerRow("a", "p", "1", "x", 1e-7, None, 1e-5),
        book.LedgerRow("b", "q", compared="y", reason="q is not installed"),
    ]
    second = [
        book.LedgerRow("a", "p", compared="x", reason="p is not installed"),
        book.LedgerRow("b", "q", "2", "y", 2e-7, 3e-7, 1e-5),
    ]
    assert ledger_rows.read(file) == []
    ledger_rows.keep(file, ledger_rows.filled(first, ledger_rows.read(file)), whole=True)
    both = ledger_rows.filled(second, ledger_rows.read(file))
    assert both == [first[0], second[1]]
    ledger_rows.keep(file, both, whole=True)
    newer = book.LedgerRow("b", "q", "3", "y", 4e-7, 4e-7, 1e-5)
    ledger_rows.keep(file, [newer], whole=False)
    assert ledger_rows.read(file) == [first[0], newer]
    assert ledger_rows.filled([newer], both) == [newer]


def test_file_of_other_rows_is_refused(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"cell": 1}\n')
    with pytest.raises(ValueError, match="does not hold rows of the ledger"):
        ledger_rows.read(file)
