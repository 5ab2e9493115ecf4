"""Evaluation without a model: how the trivial baselines and shortcut heuristics of a task come to their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tasks.harness.evaluate import average
from tasks.task import Answers, EvaluationBatch, Measurement, Task

Reader = Callable[[EvaluationBatch], Answers]


def sit(task: Task, answer: Reader, split: str = "test") -> list[Measurement]:
    """What `answer` scores on a task's evaluation: scored, averaged and finished just as a model's answers are."""
    return sit_each(task, {"": answer}, split)[""]


def sit_each(task: Task, readers: Mapping[str, Reader], split: str = "test") -> dict[str, list[Measurement]]:
    """What each of several scores, by name. Every evaluation is drawn once for all of them, and one is held at a time."""
    found: dict[str, list[Measurement]] = {name: [] for name in readers}
    for exam in task.exams(split):
        for name, answer in readers.items():
            found[name] += task.mark(exam, answer(exam))
    return {name: task.finish(average(measurements)) for name, measurements in found.items()}
