"""BABILong: how answers are scored, and what shortcut heuristics and trivial baselines score."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.floors import majorities, story_of
from tasks.babilong.questions import split_of
from tasks.babilong.scoring import last_mentioned, last_touchers_room, last_unasked_label, matches
from tasks.babilong.task import BABILong
from tests.support.babilong_rows import SMALL, rows

SPOKEN = ["generated_accuracy", "exact_accuracy", "scorer_disagreement"]
LABELS = TASKS["qa1"].labels


def test_oracle_is_always_right() -> None:
    for split in ("validation", "test"):
        for exam in SMALL.exams(split):
            marks = list(SMALL.mark(exam, SMALL.oracle(exam)))
            assert [m.metric for m in marks] == ["choice_accuracy", *SPOKEN]
            assert all(
                m.value == (m.metric != "scorer_disagreement") and m.count == len(exam.batch.tokens) for m in marks
            )
            assert all(m.where == exam.batch.where for m in marks)


def test_wrong_answers_are_marked_wrong_one_by_one() -> None:
    exam = next(exam for exam in SMALL.exams("test") if exam.batch.where["length"] == 256)
    assert exam.batch.where["question"] == "qa1"
    good = SMALL.oracle(exam)
    choice = good.choice.clone()
    choice[0] = (choice[0] + 1) % 6
    said = (tuple(b"in the " + bytes(good.text[0]) + b". not the office"), tuple(b"who knows"), *good.text[2:])
    marks = {m.metric: m.value * 12 for m in SMALL.mark(exam, good._replace(choice=choice, text=said))}
    assert marks == pytest.approx(
        {"choice_accuracy": 11, "generated_accuracy": 11, "exact_accuracy": 10, "scorer_disagreement": 1}
    )
    assert [m.metric for m in SMALL.mark(exam, good._replace(choice=None))] == SPOKEN
    assert [m.metric for m in SMALL.mark(exam, good._replace(text=None))] == ["choice_accuracy"]


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("kitchen", True),
        ("Kitchen", True),
        ("The milk is in the kitchen. It was in the office.", True),
        ("kitchen<example>office", True),
        ("kitchen <context> garden", True),
        ("before the office it was in the kitchen", True),
        ("kitchen or garden", False),
        ("garden", False),
        ("office", False),
        ("", False),
        (". kitchen", False),
    ],
)
def test_comparison_is_babilongs(output: str, right: bool) -> None:
    assert matches(output, "kitchen", "Where was the milk before the Office? ", LABELS) is right


def test_cheats_read_what_they_say() -> None:
    context = " John got the milk there. Mary went to the garden. John moved to the office. A kitchen. Mary left."
    assert last_mentioned(context, "", LABELS) == "kitchen"
    assert last_unasked_label(context, "Where was it before the kitchen?", LABELS) == "office"
    assert last_mentioned("nothing", "", LABELS) == LABELS[0]
    assert last_touchers_room(context, "Where is the milk?", LABELS) == "office"
    assert last_touchers_room(context + " Mary picked up the milk there.", "Where is the milk?", LABELS) == "garden"
    assert last_touchers_room(context, "Where is the apple?", LABELS) == "kitchen"


def test_floors_have_the_marks_of_the_exam_and_tell_guesses_from_cheats() -> None:
    floors = SMALL.floors()
    assert list(floors) == [
        "floor: uniform choice",
        "floor: majority answer",
        "floor: majority answer to the question",
        "cheat: last mentioned label",
        "cheat: last mentioned label not in the question",
        "cheat: commonest label",
        "cheat: last toucher's room",
        "cheat: bag of words",
    ]
    metrics = {"choice_accuracy", "generated_accuracy", "exact_accuracy"}
    everything = {(metric, name, length) for metric in metrics for name in SMALL.questions for length in (0, 256, 512)}
    for floor, measurements in floors.items():
        keys = [(m.metric, m.where["question"], m.where["length"]) for m in measurements]
        expected = {key for key in everything if key[1] == "qa2"} if floor.endswith("room") else everything
        assert set(keys) == expected and len(keys) == len(expected) and all(m.count == 12 for m in measurements)
    uniform = {m.where["question"]: m.value for m in floors["floor: uniform choice"]}
    assert uniform == pytest.approx({"qa1": 1 / 6, "qa2": 1 / 6, "qa3": 1 / 6, "qa4": 1 / 6, "qa5": 1 / 7})
    for exam in SMALL.exams("test"):
        if exam.batch.where == {"question": "qa2", "length": 256, "unit": "byte"}:
            right = [last_touchers_room(c, q, LABELS) + "\n" == a for c, q, a in rows(exam)]
    room = {(m.metric, m.where["length"]): m.value for m in floors["cheat: last toucher's room"]}
    assert room["choice_accuracy", 256] == room["exact_accuracy", 256] == pytest.approx(sum(right) / 12)
    assert sum(right) > 6


@pytest.mark.parametrize("name", TASKS)
def test_the_bag_of_words_is_given_every_fact_of_a_text_and_no_book(name) -> None:
    task = BABILong(questions=(name,), length=1024, test_lengths=(1024,), samples=3)
    (exam,) = task.exams("test")
    items = task._exam_items("simulator", "test", name, 1024)
    known = {fact for item in items for fact in item.facts}
    found = sorted(story_of(context, known) for context, _ in task.read(exam))
    assert found == sorted(" ".join(item.facts) for item in items)
    around = "It was late; and so {} Then John Bull, Esq. spoke."
    assert all(story_of(around.format(fact), known) == fact for fact in known)


def test_majority_is_counted_on_training_stories() -> None:
    items = BABILong(questions=("qa5",), length=256).poll("qa5")
    assert len(items) == 500 and all(split_of("qa5", item.facts) == "train" for item in items)
    counts = Counter(item.answer for item in items)
    majority = majorities(items)
    assert counts[majority[""]] == max(counts.values())
    question = Counter(item.question for item in items).most_common(1)[0][0]
    answers = Counter(item.answer for item in items if item.question == question)
    assert answers[majority[question.strip()]] == max(answers.values())


def test_prompts_are_read_once_for_all_who_are_asked(monkeypatch) -> None:
    """Twelve answer each question of a text; at a million tokens each reading takes seconds."""
    task = BABILong(questions=("qa1",), length=128, test_lengths=(256,), samples=4)
    read = []
    decode = task.tokenizer.decode
    monkeypatch.setattr(task.tokenizer, "decode", lambda tokens: read.append(len(tokens)) or decode(tokens))
    task.floors()
    (exam,) = task.exams("test")
    assert sum(length == exam.prompt for length in read) == 4
    one, other = task.read(exam), task.read(exam._replace(batch=exam.batch._replace(tokens=exam.batch.tokens.flip(0))))
    assert one == other[::-1] != other  # another text of the same shape is not taken for it
