"""Sitting an exam without a model: how the floors and cheats of a task come to their scores."""

from __future__ import annotations

from collections.abc import Callable

from tasks.evaluate import average
from tasks.task import Answers, Exam, Measurement, Task


def sit(task: Task, answer: Callable[[Exam], Answers], split: str = "test") -> list[Measurement]:
    """What `answer` scores on a task's exam: marked, averaged and finished just as a model's answers are."""
    measurements = [m for exam in task.exams(split) for m in task.mark(exam, answer(exam))]
    return task.finish(average(measurements))
