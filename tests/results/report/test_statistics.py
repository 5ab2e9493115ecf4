"""Differences over seeds: Student's tail, pairing, Holm's correction and ranks, held to values worked out by hand."""

from __future__ import annotations

import math

import pytest

from results.report import statistics
from results.report.statistics import Difference


def test_intervals_equal_closed_forms():
    mean, half = statistics.student([0.0, 2.0])  # one degree of freedom: the Cauchy quantile tan(0.475 pi)
    assert (mean, half) == pytest.approx((1.0, math.tan(0.475 * math.pi)))
    low, high = statistics.wilson(0.5, 4)  # z^2 = 3.8415: centre 1/2, half z / 2 / sqrt(4 + z^2)
    assert high - 0.5 == pytest.approx(0.5 - low) == pytest.approx(1.959964 / 2 / math.sqrt(4 + 3.841459), abs=1e-6)
    assert statistics.wilson(0.0, 10)[0] == 0.0 and statistics.wilson(1.0, 10)[1] == 1.0
    assert statistics.wilson(0.3, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="at least two seeds"):
        statistics.student([1.0])


def test_a_difference_pairs_the_seeds_that_both_have():
    values = {"a": {0: 1.0, 1: 2.0, 2: 3.0, 7: 99.0}, "b": {0: 0.0, 1: 0.0, 2: 0.0, 8: -99.0}}
    found = statistics.paired("a", "b", values)
    # gaps 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 2 sqrt(3), two degrees of freedom
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3))
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert found.shown == 0  # three seeds state no ordering
    assert statistics.paired("a", "b", {"a": {0: 1.0}, "b": {1: 1.0}}) is None
    one = statistics.paired("a", "b", {"a": {0: 1.0}, "b": {0: 0.0}})
    assert (one.low, one.high, one.p, one.shown) == (None, None, 1.0, 0)


def test_equal_gaps_are_certain_and_no_gap_is_none():
    flat = {seed: 0.5 for seed in range(5)}
    better = {seed: 0.75 for seed in range(5)}
    assert statistics.paired("a", "b", {"a": better, "b": flat}).shown == 1
    assert statistics.paired("b", "a", {"a": better, "b": flat}).shown == -1
    assert statistics.paired("a", "b", {"a": flat, "b": dict(flat)}).shown == 0


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_correction_takes_back_what_one_pair_alone_would_show():
    pair = Difference("a", "b", 1.0, 0.1, 1.9, 0.03, 5)
    assert pair.shown == 1
    assert [d.shown for d in statistics.corrected([pair, pair])] == [0, 0]


def test_all_pairs_come_corrected_in_order():
    values = {name: {seed: base + 0.01 * seed * (-1) ** seed for seed in range(5)} for name, base in
              (("a", 0.0), ("b", 1.0), ("c", 2.0))}  # fmt: skip
    found = statistics.all_pairs(values)
    assert [(d.first, d.second) for d in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [d.shown for d in found] == [-1, -1, -1]


def test_average_ranks_share_ties_and_follow_the_metric():
    blocks = [{"a": 0.9, "b": 0.5, "c": 0.5}, {"a": 0.1, "b": 0.2, "c": 0.3}]
    assert statistics.average_ranks(blocks, 1) == {"a": 2.0, "b": 2.25, "c": 1.75}
    assert statistics.average_ranks(blocks, -1) == {"a": 2.0, "b": 1.75, "c": 2.25}
    with pytest.raises(ValueError, match="every model in every block"):
        statistics.average_ranks([{"a": 1.0}, {"b": 1.0}], 1)


def test_critical_difference_needs_twenty_blocks():
    # Demšar's example has 4 models: q = 2.569; at 20 blocks 2.569 sqrt(20 / 120)
    assert statistics.critical_difference(4, 20) == pytest.approx(2.569 * math.sqrt(20 / 120), rel=1e-4)
    with pytest.raises(ValueError, match="from 20 blocks up; there are 19"):
        statistics.critical_difference(4, 19)
    with pytest.raises(ValueError, match="at least 2 models"):
        statistics.critical_difference(1, 30)


def test_critical_difference_knows_no_limit_of_models():
    assert statistics.critical_difference(60, 30) > statistics.critical_difference(20, 30)
