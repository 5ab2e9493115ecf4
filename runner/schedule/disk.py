"""What a run will take on the disk: models that are kept, trainings in progress, and texts that are fetched."""

from __future__ import annotations

from dataclasses import dataclass, field

import tasks
from results.cell import Cell
from results.rows.metrics import byte_size
from runner.cell_key import as_trained
from tasks.text import named

KEPT = 4  # bytes of a learned number in a kept model
IN_PROGRESS = 12  # and in a snapshot: itself and the optimiser's two averages
SNAPSHOTS = 2  # of a training, while a new one is written beside the last
TEXTS = (
    2  # times a corpus of the hub: as text (1), packed (about 0.4), as tokens (about 0.5: two bytes for four letters)
)


@dataclass
class Disk:
    """Bytes by what takes them: each kept model and each corpus once, and the largest training in progress."""

    models: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    largest: int = 0

    def add(self, cell: Cell, numbers: int | None) -> None:
        """A training that is to come, of a model of so many learned numbers, which will be kept; None where none is."""
        corpus = tasks.trained(cell.task, cell.task_settings)[1].get("corpus", "")
        if isinstance(corpus, str) and named.is_named(corpus):
            self.texts[corpus] = TEXTS * named.asked_bytes(corpus)
        if numbers is None:
            return
        asked = as_trained(cell)
        self.largest = max(self.largest, SNAPSHOTS * IN_PROGRESS * numbers)
        if cell.kind == "training":  # a trial of a learning rate keeps no model
            what = asked.model, asked.settings, asked.size, asked.task, asked.task_settings, asked.budget
            self.models[repr((*what, asked.seed, asked.lr, asked.dtype))] = KEPT * numbers

    def told(self, workers: int) -> list[str]:
        """In words, for trainings of which so many go on side by side; none where nothing is kept and nothing fetched."""
        parts = [(sum(self.models.values()), "models"), (workers * self.largest, "trainings in progress")]
        parts.append((sum(self.texts.values()), "texts"))
        named_parts = ", ".join(f"{byte_size(taken)} for {what}" for taken, what in parts if taken)
        return [f"about {named_parts} on the disk"] if named_parts else []
