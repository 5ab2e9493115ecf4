"""The one evaluation loop: long inputs are fed in pieces with the state carried, and every task scores the answers.

A question is read once. Teacher forcing, the closed set of choices and generation all go on from the state after it,
which the model's contract keeps untouched. Logits that are no numbers give no answer: the evaluation's scores are then NaN, never
a share of right answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from tasks.harness import peak_memory
from tasks.harness.precision import precision
from tasks.task import IGNORE, Answers, EvaluationBatch, Measurement, Task

Model = Callable[..., tuple[Tensor, Any]]

PIECE = 1024  # tokens of each row fed at once
LONG = 16000  # tokens from which on a text counts as long: the memory that it takes is measured too


class NoNumbers(FloatingPointError):
    """Logits that are NaN or infinite where an answer is read from them; the message says at which length."""


def evaluate(
    model: Model,
    task: Task,
    split: str = "test",
    *,
    dtype: str = "float32",
    device: str = "cpu",
    piece: int = PIECE,
    progress: Callable[[dict], None] | None = None,
    keep: Callable[[int, EvaluationBatch, Answers | None], None] | None = None,
) -> list[Measurement]:
    """All measurements of a model on a task's evaluation: scored, averaged over evaluations by count, and finished by the task.

    Memory does not grow with a text's length beyond the text itself; for texts of at least LONG tokens
    `evaluation_peak_memory_bytes` says what the process held at most while it was evaluated at each length. `keep` is
    told each evaluation's number and answers, for whoever wants to score them again; None where the logits are no numbers, whose
    scores (see `lost`) make every average that they enter NaN.
    """
    measurements: list[Measurement] = []
    peaks: dict[int, list[int]] = {}
    with torch.no_grad(), precision(dtype, device):
        for number, exam in enumerate(task.exams(split)):
            length = exam.batch.where.get("length", 0)
            if length >= LONG:
                peak_memory.reset_peak(device)
            answers, marks = _sat(model, task, exam, device, piece)
            measurements += marks
            if keep is not None:
                keep(number, exam, answers)
            if length >= LONG:
                peaks.setdefault(length, []).append(peak_memory.peak(device))
            if progress is not None:
                progress({"exam": number + 1, "length": exam.batch.tokens.shape[1]})
    held = [
        Measurement("evaluation_peak_memory_bytes", float(max(each)), len(each), {"length": length})
        for length, each in peaks.items()
    ]
    return task.finish(average(measurements)) + held


def _sat(
    model: Model, task: Task, exam: EvaluationBatch, device: str, piece: int
) -> tuple[Answers, list[Measurement]] | tuple[None, list[Measurement]]:
    """A model's answers to an evaluation and their scores; no answers, and scores that are NaN, where no numbers came out."""
    try:
        answers = answer(model, exam, device, piece)
    except NoNumbers:
        return None, lost(task, exam)
    marks = list(task.mark(exam, answers))
    return (answers, marks) if all(math.isfinite(m.value) for m in marks) else (None, lost(task, exam))


def lost(task: Task, exam: EvaluationBatch) -> list[Measurement]:
    """The scores of an evaluation without answers: NaN, but for what no answer changes, as the bytes of a text."""
    marks = list(task.mark(exam, task.oracle(exam)))
    given = [False] * len(marks)
    if exam.prompt is None:
        asked = exam.batch.targets != IGNORE
        wrong = task.mark(exam, Answers(-asked.float(), torch.zeros_like(asked)))
        given = [right.value == worst.value for right, worst in zip(marks, wrong, strict=True)]
    return [m if same else m._replace(value=math.nan) for m, same in zip(marks, given, strict=True)]


def validation_loss(
    model: Model,
    task: Task,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    progress: Callable[[dict], None] | None = None,
) -> Measurement:
    """Mean negative log-probability, in nats, of the asked tokens of the validation split, teacher-forced.

    The one number by which a learning rate is chosen, the same for all tasks; the test split takes no part in it.
    Raises NoNumbers.
    """
    total, count = 0.0, 0
    with torch.no_grad(), precision(dtype, device):
        for number, exam in enumerate(task.exams("validation")):
            read = exam._replace(prompt=None, choices=(), generate=0)
            total -= answer(model, read, device).log_probability.double().sum().item()
            count += int((exam.batch.targets != IGNORE).sum())
            if progress is not None:
                progress({"exam": number + 1, "length": exam.batch.tokens.shape[1]})
    return Measurement("validation_loss", total / count, count, {})


def average(measurements: list[Measurement]) -> list[Measurement]:
    """One measurement for each (metric, where), weighted by count, in order of first appearance."""
    sums: dict[tuple, list] = {}
    for m in measurements:
        entry = sums.setdefault((m.metric, tuple(sorted(m.where.items()))), [m, 0.0, 0])
        entry[1] += m.value * m.count
        entry[2] += m.count
    return [m._replace(value=total / count if count else 0.0, count=count) for m, total, count in sums.values()]


def answer(model: Model, exam: EvaluationBatch, device: str = "cpu", piece: int = PIECE) -> Answers:
    """A model's answers to one evaluation. Raises NoNumbers where they would come out of logits that are no numbers."""
    tokens, targets = exam.batch.tokens.to(device), exam.batch.targets.to(device)
    # Filled in place: small results kept from every piece would lie between the large ones that are freed, and hold their memory.
    log_probability = torch.zeros(targets.shape, device=device)
    hit = torch.zeros(targets.shape, dtype=torch.bool, device=device)

    whole = tokens.shape[1]
    # Of a piece that asks nothing the state alone is wanted: its logits are most of the work where the vocabulary is large.
    silent = getattr(model, "has_head", False)

    def read(first: int, end: int, state: Any) -> tuple[Tensor, Any]:
        """Logits [b, vocab] and state after the places from `first` to before `end`, whose targets are scored."""
        for start in range(first, end, piece):
            part = slice(start, min(start + piece, end))
            if silent and part.stop < end and bool((exam.batch.targets[:, part] == IGNORE).all()):
                state = model.hidden(tokens[:, part], state)[1]
                continue
            logits, state = model(tokens[:, part], state)
            with _placed(part.start, whole):
                log_probability[:, part], hit[:, part] = score(logits, targets[:, part])
        return logits[:, -1].float(), state

    last, state = read(0, exam.prompt or whole, None)
    if exam.prompt is not None and exam.prompt < whole:
        read(exam.prompt, whole, state)
    answers = Answers(log_probability.cpu(), hit.cpu())
    if exam.prompt is None:
        return answers
    with _placed(exam.prompt, whole):
        choice = choose(model, state, last, exam.choices).cpu() if exam.choices else None
        text = generate(model, state, last, exam.generate, exam.stop) if exam.generate else None
    return answers._replace(choice=choice, text=text)


@contextmanager
def _placed(place: int, length: int) -> Iterator[None]:
    """Say of logits that are no numbers where in the text they came."""
    try:
        yield
    except NoNumbers as error:
        raise NoNumbers(f"{error} from token {place} on of a text of length {length}") from None


def numbers(logits: Tensor) -> Tensor:
    """Logits [..., vocab] as they are; raises NoNumbers if a row holds NaN, plus infinity, or minus infinity alone."""
    if logits.numel() and not bool(logits.amax(-1).isfinite().all()):
        kind = "NaN" if bool(logits.isnan().any()) else "infinite"
        raise NoNumbers(f"the logits are {kind}")
    return logits


def score(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each asked target and whether it is the most probable token; 0 and False elsewhere.

    Raises NoNumbers.
    """
    asked = targets != IGNORE
    chosen, wanted = numbers(logits[asked].float()), targets[asked]
    log_probability = torch.zeros(targets.shape, device=logits.device)
    hit = torch.zeros(targets.shape, dtype=torch.bool, device=logits.device)
    log_probability[asked] = chosen.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    hit[asked] = chosen.argmax(-1) == wanted
    return log_probability, hit


def choose(model: Model, state: Any, last: Tensor, choices: tuple[tuple[int, ...], ...]) -> Tensor:
    """Index [b] of the most probable choice after the question; `last` [b, vocab] are the logits at its end.

    All choices go through the model at once, as rows that share the state; shorter ones are padded on the right,
    where no score is read. Raises NoNumbers.
    """
    rows, count, longest = last.shape[0], len(choices), max(map(len, choices))
    padded = torch.tensor([list(c) + [0] * (longest - len(c)) for c in choices], device=last.device)
    real = torch.tensor([[i < len(c) for i in range(longest)] for c in choices], device=last.device)
    logits = numbers(last)[:, None].expand(-1, count, -1).reshape(rows * count, 1, -1)
    if longest > 1:
        spread = tree_map(lambda x: x.repeat_interleave(count, 0) if isinstance(x, Tensor) else x, state)
        rest, _ = model(padded[:, :-1].repeat(rows, 1), spread)
        logits = torch.cat([logits, rest.float()], 1)
    numbers(logits[real.repeat(rows, 1)])
    scores = logits.log_softmax(-1).gather(-1, padded.repeat(rows, 1)[..., None])[..., 0]
    return scores.masked_fill(~real.repeat(rows, 1), 0.0).sum(-1).view(rows, count).argmax(-1)


def generate(model: Model, state: Any, last: Tensor, longest: int, stop: int | None) -> tuple[tuple[int, ...], ...]:
    """Greedy continuations of at most `longest` tokens a row, each ended before its first `stop`. Raises NoNumbers."""
    new: list[Tensor] = []
    running = torch.ones(last.shape[0], dtype=torch.bool, device=last.device)
    for _ in range(longest):
        token = numbers(last).argmax(-1)
        new.append(token)
        if stop is not None:
            running &= token != stop
        if not running.any() or len(new) == longest:
            break
        logits, state = model(token[:, None], state)
        last = logits[:, -1].float()
    rows = torch.stack(new, 1).tolist()
    return tuple(tuple(row[: row.index(stop)] if stop in row else row) for row in rows)
