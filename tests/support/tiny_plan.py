"""The plan of a comparison that is measured within a test."""

from __future__ import annotations

from collections.abc import Sequence

PLAN = """
title = "Tiny"
question = "Does it run?"
models = {models}
seeds = {seeds}
workers = 2
{rates}
size = {{ width = 16, depth = 1, heads = 2 }}
budget = {{ {budget} }}
[[tasks]]
name = "needle"
template = "compact"
variants = ["s-niah-1"]
length = 64
test_lengths = {lengths}
samples = {samples}
"""


def tiny_plan(
    *,
    models: Sequence[str] = ("transformer", "deltanet"),
    seeds: Sequence[int] = (0, 1),
    rates: str = "learning_rate = 1e-3",
    budget: str = "steps = 2, batch_tokens = 256",
    lengths: Sequence[int] = (64,),
    samples: int = 1,
) -> str:
    """The needle asked of small models; `rates` may hold further lines of the plan's head."""
    return PLAN.format(
        models=list(models), seeds=list(seeds), rates=rates, budget=budget, lengths=list(lengths), samples=samples
    )
