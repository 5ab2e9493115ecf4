"""The needle's scores: of the oracle, of guesses and shortcut heuristics, and of half right answers."""

from __future__ import annotations

from random import Random

import pytest
import torch

from tasks.harness.floors import sit
from tasks.needle.task import Needle
from tasks.task import Answers


@pytest.mark.parametrize("template", ["compact", "ruler"])
def test_the_oracle_scores_everything_and_the_floors_stand_beside_it(template, compact, ruler):
    task = compact if template == "compact" else ruler
    perfect = sit(task, task.oracle)
    assert perfect and all(m.value == 1.0 for m in perfect)
    metrics = {"exact_match", "answer_token_accuracy"} | (
        {"string_match"} if template == "ruler" else {"generated_match"}
    )
    assert {m.metric for m in perfect} == {("" if template == "ruler" else "compact_") + m for m in metrics}
    floors = task.floors()
    assert list(floors) == [
        "floor: uniform digits",
        "reference: copy the only number",
        "cheat: read the last tenth of the text",
        "cheat: a value never trained with this key",
    ]
    for marks in floors.values():
        assert [(m.metric, m.where, m.count) for m in marks] == [(m.metric, m.where, m.count) for m in perfect]
    assert all(m.value == 1.0 for m in floors["reference: copy the only number"])


def test_the_guessing_floor_is_what_a_guesser_scores():
    task = Needle(("s-niah-2", "s-niah-3"), length=64, test_lengths=(64,), depths=(0.5,), samples=1500, digits=1)
    guess = Random(0)

    def answer(exam) -> Answers:
        value = task.template.values[exam.batch.where["variant"]]
        hit = torch.zeros(exam.batch.targets.shape, dtype=torch.bool)
        texts = []
        for row, targets in enumerate(exam.batch.targets):
            said = [*value.draw(guess).encode(), 10]
            hit[row, exam.prompt - 1 :] = targets[exam.prompt - 1 :] == torch.tensor(said)
            texts.append(tuple(said[:-1]))
        return Answers(torch.zeros(hit.shape), hit, None, tuple(texts))

    floor = task.floors()["floor: uniform digits"]
    for guessed, expected in zip(sit(task, answer), floor, strict=True):
        assert guessed.value == pytest.approx(expected.value, abs=0.03)
    assert floor[0].value == pytest.approx(1 / 9) and floor[3].value == pytest.approx(16**-4)


def test_marks_of_half_right_answers(compact):
    exam = next(compact.exams("test"))  # s-niah-1: four digits and a line break
    oracle = compact.oracle(exam)
    hit = oracle.hit.clone()
    hit[0, exam.prompt] = False  # the second digit of the first row
    hit[1, -1] = False  # the terminator of the second row, which is not marked
    texts = (oracle.text[0], (*oracle.text[1], 48), *oracle.text[2:])
    marks = {
        m.metric: (m.value, m.count) for m in compact.mark(exam, Answers(oracle.log_probability, hit, None, texts))
    }
    assert marks["compact_exact_match"] == (0.75, 4)
    assert marks["compact_answer_token_accuracy"] == (15 / 16, 16)
    assert marks["compact_generated_match"] == (0.75, 4)  # "48210" is not "4821"
    without = {m.metric for m in compact.mark(exam, Answers(oracle.log_probability, hit))}
    assert without == {"compact_exact_match", "compact_answer_token_accuracy"}


def test_string_match_is_a_substring_whatever_its_case(ruler):
    exam = [e for e in ruler.exams("test") if e.batch.where["variant"] == "s-niah-3"][0]
    oracle = ruler.oracle(exam)
    said = tuple(tuple(b"\n It is " + bytes(text).upper() + b", I think") for text in oracle.text)
    (match,) = (m for m in ruler.mark(exam, oracle._replace(text=said)) if m.metric == "string_match")
    assert match.value == 1.0
    wrong = tuple(text[:-2] for text in oracle.text)  # without the last digit and the line break
    (match,) = (m for m in ruler.mark(exam, oracle._replace(text=wrong)) if m.metric == "string_match")
    assert match.value == 0.0
