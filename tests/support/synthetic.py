"""Made-up rows with the shape of a whole comparison; no number in them means anything."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from typing import Any

from results.cell import Cell
from results.rows import row as identity

FAMILIES = {
    "transformer": ("attention", 0), "transformer-window": ("attention", 0), "retnet": ("first_generation", 1),
    "mamba": ("second_generation", 2), "mamba2": ("second_generation", 2), "deltanet": ("third_generation", 3),
    "gated-deltanet": ("third_generation", 3), "ttt-linear": ("third_generation", 3),
    "ttt-mlp": ("third_generation", 3), "rmt": ("segment_recurrent", 4), "titans-lmm": ("titans", 5),
    "titans-mac": ("titans", 5), "titans-mag": ("titans", 5), "titans-mal": ("titans", 5),
}  # fmt: skip
NINE = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota")
FIFTY = {
    f"{NINE[n % 9]}-model-{n // 9}": (NINE[n % 9], n % 9) for n in range(50)
}  # nine families with five or six each
MANY = FIFTY | {
    f"{NINE[n % 9]}-model-{n // 9}-of-a-long-name": (NINE[n % 9], n % 9) for n in range(50, 73)
}  # 73 in all
MODELS = FAMILIES | MANY
WHEN = "2026-01-02T03:04:05.000000+00:00"
VERSIONS = {"python": "3.11.7", "torch": "2.0", "numpy": "2.0", "platform": "Linux x86_64", "machine": "A CPU, 2 cores"}
TASKS = {
    "language-modelling": {"length": 512},
    "needle": {"template": "compact", "variants": ["s-niah-1", "s-niah-2"]},
    "babilong": {"questions": ["qa1", "qa2", "qa3", "qa4", "qa5"]},
    "throughput": {"lengths": [128, 256, 512, 1024]},
}


def cell(model: str, task: str, kind: str = "training", seed: int = 0) -> Cell:
    timing = kind == "timing"
    return Cell(
        comparison="made-up", kind=kind, model=model, settings={}, task=task, task_settings=TASKS[task],
        size={"width": 64, "depth": 2, "heads": 4} if model else {},
        budget={} if timing or not model else {"steps": 200, "batch_tokens": 4096}, seed=seed,
        lr=0.0 if timing or not model else 0.003, dtype="float32" if model else "", provider="auto" if model else "",
        device="cpu", threads=2 if timing else 1,
    )  # fmt: skip


def rows_of(one: Cell, measurements: list, when: str = WHEN, reason: str = "") -> list[dict[str, Any]]:
    family, order = MODELS.get(one.model, ("", 0))
    who = identity.Identity(identity.key(one), family, order, "code", "data")
    rank = list(MODELS).index(one.model) if one.model else 0
    measured = identity.Measured(
        130_000 + 700 * rank if one.model else None, 1 << (10 + rank % 7) if one.model else None,
        "trained" if one.kind != "timing" else "timing", "chunked" if one.model else "", measurements,
    )  # fmt: skip
    rows = identity.failure(one, who, reason) if reason else identity.rows(one, who, measured)
    facts = {"when": when, "versions": VERSIONS, "commit": "0123456789abcdef", "dirty": False}
    return [{**row, **facts} for row in rows]


def _skill(model: str) -> float:
    return 0.25 + 0.75 * random.Random(model).random()


def language_modelling(skill: float) -> Iterator[tuple]:
    yield None, "bits_per_byte", 3.5 - skill, 60_000, {"length": 512}
    yield None, "perplexity", 2 ** (3.5 - skill), 60_000, {"length": 512}
    for start in (0, 64, 128, 256):
        end = max(64, 2 * start)
        yield (
            None,
            "bits_per_byte_at_position",
            3.7 - skill - 0.06 * math.log2(end / 64),
            9000,
            {"from": start, "to": end},
        )
    yield None, "training_seconds", 30 - 10 * skill, 200, {"tokens": 819_200}


def needle(skill: float, prefix: str = "compact_") -> Iterator[tuple]:
    for v, variant in enumerate(("s-niah-1", "s-niah-2")):
        for i, length in enumerate((128, 256, 512)):
            for depth in (0.0, 0.25, 0.5, 0.75, 1.0):
                where = {"variant": variant, "length": length, "depth": depth}
                share = round(40 * min(1, skill * (1 - 0.2 * i - 0.15 * v + 0.2 * depth))) / 40
                yield None, f"{prefix}exact_match", share, 40, where
                yield None, f"{prefix}answer_token_accuracy", 0.1 + 0.9 * share, 160, where


def babilong(skill: float) -> Iterator[tuple]:
    for q in range(1, 6):
        for i, length in enumerate((0, 128, 256, 512)):
            where = {"question": f"qa{q}", "length": length, "unit": "byte"}
            yield None, "choice_accuracy", round(50 * (0.17 + 0.7 * skill / q * (1 - 0.15 * i))) / 50, 50, where


def throughput(skill: float) -> Iterator[tuple]:
    for length in (128, 256, 512, 1024):
        for metric, value in (
            ("training_tokens_per_second", 9e3 * skill), ("prefill_tokens_per_second", 4e4 * skill),
            ("decoding_milliseconds_per_token", 2 / skill + length / 2000), ("peak_memory_bytes", 1e6 * length),
        ):  # fmt: skip
            yield None, metric, value, 5, {"length": length}


MAKERS = {"language-modelling": language_modelling, "needle": needle, "babilong": babilong}
FLOOR_SKILLS = {"language-modelling": {"bigram": 0.06, "unigram": -0.8}, "needle": {"guess": 0.0, "copy": 0.1},
                "babilong": {"majority": 0.05, "last mentioned": 0.3}}  # fmt: skip


def comparison(models=tuple(FAMILIES), seeds=(0,)) -> list[dict[str, Any]]:
    """Rows of a whole comparison: trivial baselines, three trained tasks and a timing, in the order of a run."""
    rows = []
    for task, floors in FLOOR_SKILLS.items():
        found = [
            (name, *rest) for name, s in floors.items() for _, *rest in MAKERS[task](s) if rest[0] != "training_seconds"
        ]
        rows += rows_of(cell("", task, "floors"), found)
    for task, maker in MAKERS.items():
        for seed in seeds:
            for model in models:
                rows += rows_of(cell(model, task, seed=seed), list(maker(_skill(f"{model}{task}") * (1 - 0.05 * seed))))
    for model in models:
        rows += rows_of(cell(model, "throughput", "timing"), list(throughput(_skill(model))))
    return rows


def fails(rows: list[dict], model: str, task: str, reason: str) -> list[dict]:
    """The same rows where one cell failed instead."""
    kept = [row for row in rows if (row["model"], row["task"]) != (model, task)]
    kind = "timing" if task == "throughput" else "training"
    return kept + rows_of(cell(model, task, kind), [], reason=reason)


def as_ruler(rows: list[dict]) -> list[dict]:
    """The needle's rows, asked in the RULER template."""
    made = []
    for row in rows:
        if row["task"] == "needle":
            settings = {**row["settings"], "task": {**row["settings"]["task"], "template": "ruler"}}
            metric = row["metric"].removeprefix("compact_")
            made.append({**row, "metric": metric, "settings": settings, "cell": "ruler" + row["cell"]})
    return made


def variant(one: Cell, **changes) -> Cell:
    return dataclasses.replace(one, **changes)
