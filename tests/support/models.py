"""Which models the quick suite asks everything, and which the slow one: `make test-slow` asks all of them."""

from __future__ import annotations

import pytest

import baselines  # noqa: F401  fills the registry
from models import registry

# Those that committed comparisons measure, and one of most further operations and kinds.
CORE = (
    "transformer", "transformer-window", "retnet", "gla", "mamba", "mamba2", "deltanet", "gated-deltanet", "ttt-linear",
    "ttt-mlp", "rmt", "titans-lmm", "titans-mac", "titans-mag", "titans-mal",
    "lstm", "s4d", "hawk", "mlstm", "kda", "rwkv7", "lact", "yaad", "hybrid", "performer", "routing", "block-recurrent", "knn-lm",
)  # fmt: skip


def core_first(names=None) -> list:
    """Every registered model, or those of `names`, as parameters of a test; all beyond the core are marked slow."""
    return [
        pytest.param(name, marks=[] if name in CORE else [pytest.mark.slow])
        for name in (registry.names() if names is None else names)
    ]
