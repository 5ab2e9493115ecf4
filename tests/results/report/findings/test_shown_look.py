"""Which look's difference stands beside a verdict."""

from __future__ import annotations

import pytest

from results.report.findings.evidence import Decision, Evidence
from results.report.statistics import paired

VALUES = {"a": {seed: 0.5 + 0.01 * seed for seed in range(5)}, "b": {seed: 0.7 - 0.02 * seed for seed in range(5)}}


@pytest.mark.parametrize(("is_decided", "is_level", "look"), [(True, False, 0), (True, True, 1), (False, False, 2)])
def test_a_decided_claim_shows_the_look_that_decided_and_an_open_one_the_last(is_decided, is_level, look):
    gaps = (paired("a", "b", VALUES),) * 3
    found = Evidence(None, VALUES, gaps, True, Decision(0.01, 0), Decision(0.01, 1))
    assert found.shown(is_decided, is_level) == look
