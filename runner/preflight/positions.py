"""Whether a task's evaluations fit the positions that a model knows, asked before anything is computed."""

from __future__ import annotations

from torch import nn

from tasks.task import EvaluationBatch, Task


def check(model: nn.Module, label: str, task: Task, split: str = "test") -> None:
    """Refuse a task with an evaluation of more tokens than `model.positions`; a model without that attribute knows any number.

    Raises ValueError.
    """
    known = getattr(model, "positions", None)
    if known is None:
        return
    begin = len(getattr(model, "begin", ()))
    for exam in task.exams(split):
        needed = begin + fed(exam)
        if needed > known:
            about = ", ".join(f"{name} {value}" for name, value in exam.batch.where.items())
            raise ValueError(
                f"{label} knows {known:,} positions, and {task.name} needs {needed:,} of them ({about}): ask shorter lengths."
            )


def fed(exam: EvaluationBatch) -> int:
    """The most tokens that a model is fed for one question: the text, or its prompt and what comes after but the last."""
    whole = exam.batch.tokens.shape[1]
    if exam.prompt is None:
        return whole
    after = max([exam.generate, *map(len, exam.choices)])
    return max(whole, exam.prompt + after - 1)
