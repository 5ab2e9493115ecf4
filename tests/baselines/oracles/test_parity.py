"""Our numbers against other people's code, forward and backward, wherever their packages are installed."""

from __future__ import annotations

import pytest

from baselines.oracles.parity.comparison import FP16, Comparison, version
from baselines.oracles.parity.ledger import COMPARISONS, INSTALL


@pytest.mark.parametrize("item", COMPARISONS, ids=lambda item: f"{item.model}: {item.compared}")
def test_agrees_with_independent_code(item: Comparison):
    if version(item.package) is None:
        pytest.skip(f"{item.package} is not installed: {INSTALL[item.package]}")
    if item.obstacle():
        pytest.skip(item.obstacle())
    errors = item.run()
    assert errors.forward < item.bound
    assert errors.backward is None or errors.backward < item.bound
    assert item.bound <= (FP16 if "float16" in item.compared else 1e-5)
