"""What a model answered to an evaluation batch, as plain data from which every score can be given again.

A question keeps the answers themselves: hits at the asked places, the choice, the generated tokens. Where probabilities are
scored, as in running text, each row (window or document) keeps its scores: its bits, by position too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tasks.harness.evaluate import average, lost
from tasks.task import IGNORE, Answers, EvaluationBatch, Measurement, Task

Record = dict[str, Any]


class PredictionError(ValueError):
    """Kept answers that do not fit the task's evaluation; the message says where."""


def keep(task: Task, number: int, exam: EvaluationBatch, answers: Answers | None) -> Record:
    """The record of evaluation `number` (from 0), JSON-ready; `lost` without answers, where the logits were no numbers."""
    record: Record = {"exam": number, "where": dict(exam.batch.where)}
    if answers is None:
        return record | {"lost": True}
    asked = exam.batch.targets != IGNORE
    hits = ["".join("1" if hit else "0" for hit in answers.hit[row][asked[row]].tolist()) for row in range(len(asked))]
    record["hits"] = hits
    if answers.choice is not None:
        record["choices"] = answers.choice.tolist()
    if answers.text is not None:
        record["texts"] = [list(text) for text in answers.text]
    if exam.prompt is not None or list(task.mark(exam, _answers(exam, record))) == list(task.mark(exam, answers)):
        return record
    rows = [task.mark(_row(exam, row), _answers_of(answers, row)) for row in range(len(asked))]
    marks = [[[m.metric, m.value, m.count, m.where] for m in one] for one in rows]
    return {"exam": number, "where": record["where"], "rows": marks}


def mark(task: Task, exams: Sequence[EvaluationBatch], records: Sequence[Record]) -> list[Measurement]:
    """The measurements that kept answers give under the task's scorer and `exams` as they are now; NaN of lost ones.

    Raises PredictionError where records and evaluations disagree in number, settings, rows or asked places.
    """
    if len(records) != len(exams):
        raise PredictionError(f"{len(records)} evaluations were kept, but the task sets {len(exams)}.")
    found: list[Measurement] = []
    for number, (exam, record) in enumerate(zip(exams, records, strict=True)):
        if record.get("exam") != number or record.get("where") != exam.batch.where:
            raise PredictionError(
                f"Evaluation {number} was kept for {record.get('where')}, the task asks {exam.batch.where}."
            )
        try:
            found += _marks(task, exam, record)
        except PredictionError:
            raise
        except (KeyError, TypeError, IndexError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
            raise PredictionError(f"The record of evaluation {number} is malformed ({type(error).__name__}).") from None
    return task.finish(average(found))


def _marks(task: Task, exam: EvaluationBatch, record: Record) -> list[Measurement]:
    if record.get("lost") is True:
        return lost(task, exam)
    return _kept_marks(task, exam, record) if "rows" in record else list(task.mark(exam, _answers(exam, record)))


def _kept_marks(task: Task, exam: EvaluationBatch, record: Record) -> list[Measurement]:
    """Each row's kept scores, refused where another metric, setting or count stands than the row is worth."""
    count = len(exam.batch.tokens)
    if len(record["rows"]) != count:
        raise PredictionError(f"Evaluation {record['exam']} has {count} rows, {len(record['rows'])} were kept.")
    found: list[Measurement] = []
    asked = exam.batch.targets != IGNORE
    extremes = Answers(torch.zeros(asked.shape), asked), Answers(-asked.float(), torch.zeros_like(asked))
    for row, marks in enumerate(record["rows"]):
        kept = [Measurement(*mark) for mark in marks]
        best, worst = (list(task.mark(_row(exam, row), _answers_of(answers, row))) for answers in extremes)
        facts = [[(m.metric, m.count, m.where) for m in marks] for marks in (kept, best)]
        given = zip(kept, best, worst, strict=False)  # what no answer changes, as the bytes of the text
        other = any(one.value == last.value != mine.value for mine, one, last in given)
        if facts[0] != facts[1] or other:
            raise PredictionError(
                f"Row {row} of evaluation {record['exam']} was kept with other places than the task marks."
            )
        found += kept
    return found


def _answers(exam: EvaluationBatch, record: Record) -> Answers:
    asked = exam.batch.targets != IGNORE
    hit = torch.zeros(asked.shape, dtype=torch.bool)
    lengths = asked.sum(1).tolist()
    if [len(hits) for hits in record["hits"]] != lengths or set("".join(record["hits"])) - {"0", "1"}:
        raise PredictionError(
            f"Evaluation {record['exam']} asks {lengths} places a row; other numbers of hits were kept."
        )
    hit[asked] = torch.tensor([mark == "1" for hits in record["hits"] for mark in hits], dtype=torch.bool)
    answers = Answers(torch.zeros(asked.shape), hit)
    for name, wanted in (("choices", bool(exam.choices)), ("texts", bool(exam.generate))):
        if wanted and len(record[name]) != len(asked):
            raise PredictionError(
                f"Evaluation {record['exam']} has {len(asked)} rows, {len(record[name])} {name} were kept."
            )
    if exam.choices:
        if not all(0 <= index < len(exam.choices) for index in record["choices"]):
            raise PredictionError(
                f"Evaluation {record['exam']} has {len(exam.choices)} choices; a kept one is none of them."
            )
        answers = answers._replace(choice=torch.tensor(record["choices"]))
    if exam.generate:
        answers = answers._replace(text=tuple(tuple(text) for text in record["texts"]))
    return answers


def _row(exam: EvaluationBatch, row: int) -> EvaluationBatch:
    """An evaluation of one row alone."""
    one = slice(row, row + 1)
    batch = exam.batch._replace(tokens=exam.batch.tokens[one], targets=exam.batch.targets[one])
    parts = {name: None if (kept := getattr(exam, name)) is None else kept[one] for name in ("bytes", "words")}
    return exam._replace(batch=batch, **parts)


def _answers_of(answers: Answers, row: int) -> Answers:
    return Answers(answers.log_probability[row : row + 1], answers.hit[row : row + 1])
