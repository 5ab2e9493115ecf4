"""One question of a task's evaluation, made readable: settings, text with what the answer follows from marked, and answer."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tasks.synthetic.symbol_task import SymbolTask, last_asked, runs
from tasks.task import IGNORE, EvaluationBatch, Task
from tasks.text.tokenizer import BYTES

AROUND = 160  # characters shown beside what matters in a long text
MARKED, ASKED, CUT = "bold black on yellow", "bold green", "dim"


def render(task: Task, settings: dict[str, Any], split: str = "test", number: int = 0, whole: bool = False) -> Group:
    """Question `number` of a split: its settings, its text (cut in the middle unless `whole`), its answer.

    Raises ValueError where the split has no such question.
    """
    exam, row = _find(task, split, number)
    title = Text(f"{task.name}, {split} question {number}, protocol {task.protocol}", style="bold")
    table = Table("setting", "value", box=None, padding=(0, 2, 0, 0))
    for name, value in {**settings, **exam.batch.where}.items():
        table.add_row(Text(str(name)), Text(str(value)))
    if isinstance(task, SymbolTask):
        return Group(title, table, *_symbols(task, exam, row, whole))
    tokens, targets = exam.batch.tokens[row].tolist(), exam.batch.targets[row].tolist()
    if exam.prompt is None:
        said = [target for target in targets if target != IGNORE]
        return Group(title, table, _text(task, tokens, (), whole), _answer(f"{len(said)} tokens are asked", task, said))
    prompt = _text(task, tokens[: exam.prompt], task.evidence(exam, row), whole)
    return Group(title, table, prompt, *_answers(task, exam, row))


def _find(task: Task, split: str, number: int) -> tuple[EvaluationBatch, int]:
    before = 0
    for exam in task.exams(split):
        if before <= number < before + len(exam.batch.tokens):
            return exam, number - before
        before += len(exam.batch.tokens)
    raise ValueError(f"The {split} split of {task.name} has {before} questions: ask for one from 0 on.")


def _answers(task: Task, exam: EvaluationBatch, row: int) -> list[Text]:
    lines = [_answer("answer", task, list(task.truth(exam, row)))]
    if evidence := task.evidence(exam, row):
        lines.append(Text("follows from: " + " | ".join(evidence)))  # for terminals and files without colors
    if exam.choices:
        lines.append(Text("choices: " + " | ".join(_shown(task, list(choice)).strip() for choice in exam.choices)))
    return lines


def _answer(label: str, task: Task, tokens: list[int]) -> Text:
    shown = _shown(task, tokens)
    return Text(f"{label}: ").append(repr(shown if len(shown) <= 2 * AROUND else shown[:AROUND] + " ..."), style=ASKED)


def _shown(task: Task, tokens: list[int]) -> str:
    """The text of tokens; where a task has no tokenizer, bytes as text and other tokens as numbers."""
    tokenizer = getattr(task, "tokenizer", BYTES if task.vocab == BYTES.vocab else None)
    return tokenizer.decode(tokens) if tokenizer else " ".join(map(str, tokens))


def _text(task: Task, tokens: list[int], evidence: tuple[str, ...], whole: bool) -> Text:
    """The text with its evidence marked; of a long one only what stands around that, and both ends."""
    shown = _shown(task, tokens)
    spans, after = [], 0
    for piece in sorted(evidence, key=shown.find):
        begin = shown.find(piece, after)
        begin = begin if begin >= 0 else shown.find(piece)
        if begin >= 0:
            spans.append((begin, begin + len(piece)))
            after = begin + len(piece)
    return _marked(shown, spans, whole)


def _symbols(task: SymbolTask, exam: EvaluationBatch, row: int, whole: bool) -> list[Text]:
    """A text of symbols, its last question with what the answer follows from, and the answers to all."""
    tokens, targets = exam.batch.tokens[row].tolist(), exam.batch.targets[row].tolist()
    ends = list(itertools.accumulate(len(task.symbol(token)) + 1 for token in tokens))
    asked = last_asked(exam, row)
    spans = [(ends[a - 1] if a else 0, ends[b - 1] - 1) for a, b in runs(task.sources(tokens, asked))]
    answers = [target for target in targets if target != IGNORE]
    lines = [
        _marked(task.spell(tokens), spans, whole),
        Text(f"question: {task.symbol(tokens[asked])} at place {asked}, the last of {len(answers)} that are asked"),
        Text("answer: ").append(repr(task.symbol(answers[-1])), style=ASKED),
    ]
    if evidence := " | ".join(task.evidence(exam, row)):
        lines.append(Text("follows from: " + (evidence if len(evidence) <= AROUND else evidence[:AROUND] + " ...")))
    said = task.spell(answers)
    return [*lines, Text("all answers: " + (said if whole or len(said) <= 2 * AROUND else said[: 2 * AROUND] + " ..."))]


def _marked(shown: str, spans: list[tuple[int, int]], whole: bool) -> Text:
    text = Text(shown)
    for begin, end in spans:
        text.stylize(MARKED, begin, end)
    if whole:
        return text
    keep = [
        (0, AROUND),
        *((begin - AROUND, end + AROUND) for begin, end in spans),
        (len(shown) - 2 * AROUND, len(shown)),
    ]
    return _cut(text, _joined([(max(0, begin), min(len(shown), end)) for begin, end in keep]))


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def _cut(text: Text, spans: list[tuple[int, int]]) -> Text:
    shown = Text()
    for (begin, end), following in itertools.zip_longest(spans, spans[1:]):
        shown.append_text(text[begin:end])
        if following:
            shown.append(f" [... {following[0] - end} characters ...] ", style=CUT)
    return shown


def aligned(task: Task, last: int = 0) -> str:
    """The first text of a task's test, each target under the symbol that it is asked at; `_` where nothing is asked.

    With `last`, the end of the text alone. A line break is shown as `|`, what has no sign of its own as `~`.
    """
    exam = next(iter(task.exams("test")))
    tokens, targets = (part[0, -last:].tolist() for part in exam.batch[:2])
    symbol = task.symbol if isinstance(task, SymbolTask) else partial(_letter, task)
    rows = [[symbol(token) for token in tokens], ["_" if token == IGNORE else symbol(token) for token in targets]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    between = " " if isinstance(task, SymbolTask) else ""
    return "\n".join(between.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _letter(task: Task, token: int) -> str:
    shown = _shown(task, [token]).replace("\n", "|")
    return shown if shown.isprintable() else "~"
