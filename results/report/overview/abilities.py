"""What models are compared in across comparisons: abilities, and the number of an evaluation that stands for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from results.report.evaluations import Evaluation
from results.report.tables import columns
from results.report.tables.columns import Column
from results.rows import metrics

FAR = 4  # times the trained length, and the shortest asked, from which a text is a long one


@dataclass(frozen=True)
class Ability:
    """Something that a model can do, or what it costs, and the tasks that ask for it."""

    name: str
    asks: str  # in a few words, for who reads the column's head
    tasks: tuple[str, ...]
    metric: str = ""  # "" takes a task's main accuracy
    where: Mapping[str, Any] = field(default_factory=dict)  # what of the task is meant; {} is the mean over all
    longest: bool = False  # at the longest length alone

    def column(self, evaluation: Evaluation) -> Column | None:
        """The number of an evaluation that stands for this ability; None where it has none."""
        if evaluation.task not in self.tasks or evaluation.is_contest:
            return None
        found = [self.metric] if self.metric else evaluation.main_accuracies[:1]
        wheres = [
            where for metric in found for where in evaluation.wheres(metric) if self.where.items() <= where.items()
        ]
        if not wheres:
            return None
        if not self.longest:
            return Column(metrics.words(found[0]), found[0], dict(self.where))
        lengths = sorted({where["length"] for where in wheres if "length" in where}, key=metrics.sort_key)
        trained = evaluation.settings.get("length", 0)
        if not self.metric and (not lengths or lengths[-1] < FAR * max(trained, lengths[0])):
            return None
        end = {"length": lengths[-1]} if lengths else {}
        head = ", ".join(filter(None, [metrics.words(found[0]), columns.where_text(end)]))
        return Column(head, found[0], {**self.where, **end})


RECALL = (
    "mqar",
    "mad-in-context-recall",
    "mad-fuzzy-recall",
    "mad-noisy-recall",
    "overflow",
    "nonlinear-recall",
    "phone-book",
)
SELECTION = ("selective-copying", "mad-selective-copying", "flow")
TRACKING = ("state-tracking", "modular-arithmetic", "flip-flop", "variable-tracking")
NEEDLE, STORIES = ("needle", "zero-shot-needle"), ("babilong", "few-shot-babilong")
ABILITIES = (
    Ability("text", "the next byte of a text", ("language-modelling",), "bits_per_byte"),
    Ability("needle", "one fact in a long text", NEEDLE),
    Ability("stories", "facts strewn over a book (BABILong)", STORIES),
    Ability("recall", "values of many keys", RECALL),
    Ability("overwriting", "the value that holds now", ("forgetting",), "accuracy", {"asked": "overwritten"}),
    Ability("selection", "what counts among what does not", SELECTION),
    Ability("tracking", "where a sequence of steps has led", TRACKING),
    Ability("memorising", "what training told", ("mad-memorisation", "mad-compression")),
    Ability("length", "the same in the longest texts asked", (*NEEDLE, *STORIES, *RECALL, *SELECTION, *TRACKING), longest=True),
    Ability("training speed", "tokens a second in training", ("throughput",), "training_tokens_per_second", longest=True),
    Ability("decoding speed", "time for one more token", ("throughput",), "decoding_milliseconds_per_token", longest=True),
    Ability("state", "bytes that are carried on", ("throughput",), "state_bytes", longest=True),
)  # fmt: skip
QUALITIES = tuple(one for one in ABILITIES if "throughput" not in one.tasks)
COST = {one.name: one for one in ABILITIES if "throughput" in one.tasks}
