"""BABILong with qa6 to qa20: prompts, splits, answers, the official comparison's quirks, trivial baselines and evidence."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.released import Story
from tasks.babilong.instructions import EXAMPLES, INSTRUCTIONS
from tasks.babilong.questions import SIMULATOR, split_of
from tasks.babilong.scoring import DISAGREEMENT, in_order, matches, same
from tasks.babilong.task import QUESTIONS, BABILong
from tasks.harness.floors import sit
from tasks.text.tokenizer import BYTES
from tests.support.babi_readers import READERS, check

LATER = tuple(name for name in TASKS if name not in QUESTIONS)
NUMBERS = ("none", "one", "two", "three")


@pytest.fixture(scope="module")
def task() -> BABILong:
    return BABILong(LATER, length=512, test_lengths=(0, 512, 1000), samples=8)


def test_there_are_twenty_and_five_are_asked_unless_said_otherwise(task: BABILong) -> None:
    assert list(TASKS) == [f"qa{number}" for number in range(1, 21)]
    assert BABILong().questions == QUESTIONS == ("qa1", "qa2", "qa3", "qa4", "qa5")
    assert task.trained == LATER and task.left_out() == {} and len(LATER) == 15
    assert set(INSTRUCTIONS) == set(EXAMPLES) == set(TASKS)


def test_prompts_hold_their_items_and_the_readers_answers(task: BABILong) -> None:
    counts: Counter[tuple[str, int]] = Counter()
    for exam in task.exams("test"):
        where = exam.batch.where
        items = task._kept[SIMULATOR, "test", where["question"], where["length"]]
        counts[where["question"], where["length"]] += len(exam.batch.tokens)
        for row, (context, question) in enumerate(task.read(exam)):
            answer = BYTES.decode(task.truth(exam, row)).strip()
            same_prompt = [i for i in items if i.question.strip() == question and in_order(i.facts, context)]
            assert answer in {item.answer for item in same_prompt}
            item = next(item for item in same_prompt if item.answer == answer)
            assert split_of(where["question"], item.facts) == "test"
            check(where["question"], [Story(list(item.facts), [item])])
            evidence = task.evidence(exam, row)
            assert evidence and all(" " + fact in context for fact in evidence)
    assert counts == {(question, length): 8 for question in LATER for length in (0, 512, 1000)}


def test_the_oracle_is_right_wherever_the_official_comparison_can_be(task: BABILong) -> None:
    none = {
        length: sum(item.answer == "none" for item in task._exam_items(SIMULATOR, "test", "qa7", length)) / 8
        for length in (0, 512, 1000)
    }
    assert any(none.values())
    for m in sit(task, task.oracle):
        none_is_wrong = m.metric in ("generated_accuracy", DISAGREEMENT) and m.where["question"] == "qa7"
        wrong = none[m.where["length"]] if none_is_wrong else 0
        assert m.value == pytest.approx(wrong if m.metric == DISAGREEMENT else 1 - wrong) and m.count == 8, m


@pytest.mark.parametrize("name", list(TASKS))
def test_the_official_comparison_accepts_every_answer_but_none(name: str) -> None:
    task = TASKS[name]
    for answer in task.answers:
        assert matches(answer, answer, "", task.labels) is (answer != "none")
        assert matches(f"{answer}. {task.labels[0]}", answer, "", task.labels) is (answer != "none")


@pytest.mark.parametrize(
    ("name", "output", "target", "right"),
    [
        ("qa8", "milk and apple", "apple,milk", True),
        ("qa8", "apple", "apple,milk", False),
        ("qa8", "apple, milk, football", "apple,milk", False),
        ("qa8", "nothing", "nothing", True),
        ("qa7", "none", "none", False),
        ("qa7", "one", "one", True),
        ("qa6", "I do not know", "no", True),
        ("qa10", "maybe yes", "maybe", False),
        ("qa19", "s,e", "s,e", True),
        ("qa19", "s, e", "s,e", False),
        ("qa19", "e,s", "s,e", False),
        ("qa20", "Bored", "bored", True),
    ],
)
def test_quirks_of_the_official_comparison(name: str, output: str, target: str, right: bool) -> None:
    assert matches(output, target, "", TASKS[name].labels) is right


def test_lists_are_chosen_in_any_order_and_paths_are_not() -> None:
    assert same("apple,milk", "milk,apple") and not same("apple,milk", "apple") and not same("s,e", "e,s")
    assert same("nothing", "nothing") and not same("apple", "milk")
    assert len(TASKS["qa8"].answers) == 16 and len(TASKS["qa19"].answers) == 12


def test_training_and_exams_share_no_story(task: BABILong) -> None:
    for name in LATER:
        draws = {split: task._exam_items(SIMULATOR, split, name, 512) for split in ("validation", "test")}
        assert all(split_of(name, item.facts) == split for split, items in draws.items() for item in items)
    batches = [task.training(0, step, 1.0, 512 * 15) for step in range(3)]
    again = BABILong(LATER, length=512).training(0, 2, 1.0, 512 * 15)
    assert (batches[2].tokens == again.tokens).all()
    digest = hashlib.sha256(b"".join(b.tokens.numpy().astype("<i8").tobytes() for b in batches)).hexdigest()
    assert digest == "9b8f2acf2cd1b82b677b93863ab78a00508d7f908afa4b63c9712681baf356d2"


def test_floors_stand_beside_all_questions(task: BABILong) -> None:
    floors = task.floors()
    assert "cheat: last toucher's room" not in floors
    marks = {(m.metric, m.where["question"], m.where["length"]) for m in floors["floor: majority answer"]}
    assert len(marks) == 3 * 15 * 3
    uniform = {m.where["question"]: m.value for m in floors["floor: uniform choice"]}
    assert uniform["qa6"] == pytest.approx(1 / 2) and uniform["qa19"] == pytest.approx(1 / 12)
    orders = {1: 1, 2: 2, 3: 6}  # a list of the right things is right in any order
    for m in floors["floor: uniform choice"]:
        if m.where["question"] in ("qa7", "qa8"):
            answers = [
                item.answer for item in task._exam_items(SIMULATOR, "test", m.where["question"], m.where["length"])
            ]
            right = [orders[answer.count(",") + 1] / 16 for answer in answers]
            if m.where["question"] == "qa7":  # BABILong's comparison takes no "none"
                right = [(m.metric != "generated_accuracy" or answer != "none") / 4 for answer in answers]
            if m.where["question"] == "qa7" or m.metric != "exact_accuracy":
                assert m.value == pytest.approx(sum(right) / len(right)), m


@pytest.mark.parametrize("name", READERS)
def test_examples_are_answered_right_and_fit_the_instructed_template(name: str) -> None:
    for facts, question, answer in EXAMPLES[name]:
        told = tuple(fact + "." for fact in facts.rstrip(".").split(". "))
        said = READERS[name](told, question)
        said = NUMBERS[len(said)] if name == "qa7" else said
        if name == "qa8":
            assert said == ([] if answer == "nothing" else sorted(answer.split(",")))
        else:
            assert said == ({answer} if name == "qa19" else answer)
        assert answer in TASKS[name].answers
    task = BABILong((name,), length=2048, test_lengths=(2048,), samples=2, template="instructed")
    for exam in task.exams("test"):
        assert all(
            m.value in (1, 0.5, 0) if name == "qa7" else m.value == 1
            for m in task.mark(exam, task.oracle(exam))
            if m.metric != DISAGREEMENT
        )
        assert task.evidence(exam, 0)
