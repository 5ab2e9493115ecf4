"""One thing to measure, as workers are given it: plain data, equal for equal questions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from schema.words import several

TRIAL, CHOSEN = "trial", "chosen"  # stages of a cell whose learning rate is searched for
UNKNOWN_RATE = 0.0  # of a cell whose trials have not ended, or none of whose trials gave a loss


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    A model on a task with one seed ("training", "timing"), what a task scores without a model ("floors"), or candidates
    timed in turn ("contest").
    """

    comparison: str
    kind: str  # "training" | "trial" | "timing" | "floors" | "contest"
    model: str  # "" for trivial baselines and side-by-side benchmarks
    settings: dict[str, Any]
    task: str
    task_settings: dict[str, Any]
    size: dict[str, int]  # width, depth, heads; empty for trivial baselines
    budget: dict[str, Any]  # steps, batch_tokens; parallel, processes where several train it; empty unless it trains
    seed: int
    lr: float
    dtype: str
    provider: str  # as requested; what ran is written in the row
    device: str
    threads: int
    model_files: tuple[str, ...] = ()  # the user's own .py files and packages, imported again by workers
    variant: str = ""  # the name that tables show where the plan gives a model's settings one
    where: dict[str, Any] = field(
        default_factory=dict
    )  # of a side-by-side benchmark: the length; of a trial: split and full steps
    entrants: list[dict[str, Any]] = field(
        default_factory=list
    )  # of a side-by-side benchmark: name, model or external implementation, settings
    stage: str = ""  # "trial" and "chosen" where the learning rate is searched for

    @property
    def is_timed(self) -> bool:
        """Whether the cell's numbers are times, for which it must run alone."""
        return self.kind in ("timing", "contest")

    def of(self, entrant: dict[str, Any]) -> Cell:
        """A side-by-side benchmark's cell as one of its candidates' rows name it."""
        model = entrant["model"] or entrant["opponent"]
        return replace(self, model=model, settings=dict(entrant["settings"]), variant=entrant["name"], entrants=[])

    def describe(self) -> str:
        """A short human name, e.g. "retnet on needle, seed 0"."""
        if self.kind == "floors":
            return f"floors of {self.task}"
        if self.kind == "contest":
            where = ", ".join(f"{key} {value}" for key, value in self.where.items())
            return f"contest {self.task}, width {self.size['width']}, {where}, {self.dtype}"
        seed = f", seed {self.seed}" if self.kind in ("training", "trial") else ""
        rate = f", trial of learning rate {self.lr:g}" if self.kind == "trial" else ""
        return f"{self.variant or self.model} on {self.task}{seed}{rate}"


def counted(cells: int) -> str:
    """So many cells, in words: "1 cell", "2 cells"."""
    return several(cells, "cell")
