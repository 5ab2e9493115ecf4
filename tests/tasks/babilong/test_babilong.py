"""BABILong: how batches and evaluations are built, and which settings it takes."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest
import torch

from tasks import create
from tasks.babilong.babi.facts import TASKS
from tasks.babilong.prompt import SENTENCE_END, SHORTEST_SENTENCE
from tasks.babilong.questions import SIMULATOR, split_of
from tasks.babilong.task import STEP, BABILong
from tasks.task import IGNORE
from tasks.text.corpus import documents
from tasks.text.tokenizer import BYTES
from tests.support.babilong_rows import SMALL, rows, told

LABELS = TASKS["qa1"].labels


def test_training_rows_ask_the_answer_alone_and_are_filled_by_the_longest() -> None:
    batch = SMALL.training(seed=1, step=3, progress=1.0, tokens=8192)
    length = batch.where["length"]
    assert batch.tokens.shape == batch.targets.shape == (8192 // length, length)
    assert batch.where == {"length": length, "unit": "byte"} and batch.tokens.dtype == torch.int64
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        (asked,) = (targets != IGNORE).nonzero(as_tuple=True)
        answer = BYTES.decode(targets[asked].tolist())
        begin, end = int(asked[0]), int(asked[-1]) + 1
        assert asked.tolist() == list(range(begin, end))
        assert answer.endswith("\n") and answer[:-1] in LABELS + TASKS["qa5"].labels
        assert BYTES.decode(tokens[begin + 1 : end].tolist()) == answer[:-1] and not tokens[end:].any()
        assert BYTES.decode(tokens[: begin + 1].tolist()).endswith("? ")


def test_where_a_question_ends_does_not_tell_the_answers_length() -> None:
    task = BABILong(questions=("qa1",), length=256)
    lengths, modulo_16 = set(), set()
    for step in range(60):
        batch = task.training(0, step, 1.0, 4096)
        asked = batch.targets != IGNORE
        begins = asked.int().argmax(1)
        assert len(set(begins.tolist())) == 1  # one place in a batch, whatever its rows answer
        lengths |= set(asked.sum(1).tolist())
        modulo_16.add(int(begins[0]) % 16)
    assert lengths == {7, 8, 9} and modulo_16 == set(range(16))


def test_training_mixes_the_questions_evenly() -> None:
    starts = {"Where is (?!the)": "qa1", "Where is the": "qa2", "Where was": "qa3", "What is": "qa4"}
    starts |= {"What did|Who": "qa5"}
    counts: Counter[str] = Counter()
    for step in range(5):
        batch = SMALL.training(0, step, 1.0, 256 * 7)
        for row in batch.tokens.numpy():
            question = BYTES.decode(row).rsplit("\n", 1)[1]
            counts[next(name for start, name in starts.items() if re.match(start, question))] += 1
    assert set(counts) == set(SMALL.questions) and max(counts.values()) - min(counts.values()) <= 5


def test_training_lengths_grow_with_progress_and_are_log_uniform_at_last() -> None:
    task = BABILong(questions=("qa1", "qa4"), length=1024)
    first = {task.training(0, step, 0.0, 1).where["length"] for step in range(20)}
    assert first == {task.shortest}
    half = [task.training(0, step, 0.25, 1).where["length"] for step in range(100)]
    assert max(half) <= 1 + (task.shortest * 1024) ** 0.5
    last = [task.training(0, step, 0.5, 1).where["length"] for step in range(300)]
    assert len(set(last)) > 150 and 900 < max(last) <= 1024
    middle = (task.shortest * 1024) ** 0.5
    assert 110 <= sum(length < middle for length in last) <= 190


def test_prompts_of_a_cell_have_one_length_and_the_longest_answer_fills_it() -> None:
    for exam in SMALL.exams("test"):
        length, width = exam.batch.where["length"], exam.batch.tokens.shape[1]
        longest = max(map(len, exam.choices))
        assert exam.generate == 20 and exam.stop == ord("\n") and width == exam.prompt + longest - 1
        assert width == length if length else exam.prompt % STEP == 0
        targets = exam.batch.targets
        assert (targets[:, : exam.prompt - 1] == IGNORE).all() and (targets[:, exam.prompt - 1] != IGNORE).all()


def test_every_cell_has_its_samples_and_its_labels() -> None:
    counts: Counter[tuple] = Counter()
    for exam in SMALL.exams("test"):
        where = exam.batch.where
        counts[where["question"], where["length"]] += len(exam.batch.tokens)
        choices = tuple(BYTES.decode(choice) for choice in exam.choices)
        assert choices == tuple(label + "\n" for label in TASKS[where["question"]].labels) and where["unit"] == "byte"
    assert counts == {(question, length): 12 for question in SMALL.questions for length in (0, 256, 512)}
    validation = {tuple(exam.batch.where.values()) for exam in SMALL.exams("validation")}
    assert validation == {(question, 256, "byte") for question in SMALL.questions}


def test_fewer_samples_are_asked_of_very_long_texts() -> None:
    task = BABILong(questions=("qa1",), length=128, test_lengths=(0, 99_999, 100_000), samples=5, long_samples=2)
    counts = Counter(
        length for exam in task.exams("test") for length in [exam.batch.where["length"]] * len(exam.batch.tokens)
    )
    assert counts == {0: 5, 99_999: 5, 100_000: 2}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_context_without_its_facts_is_consecutive_text_of_the_splits_own_books(split: str) -> None:
    books = []
    for document in documents(split):
        sentences = [" ".join(sentence.split()) for sentence in SENTENCE_END.split(document.text)]
        books.append("".join(f" {sentence}" for sentence in sentences if len(sentence) >= SHORTEST_SENTENCE))
    for exam in SMALL.exams(split):
        name = exam.batch.where["question"]
        for context, _, _ in rows(exam):
            facts = told(context, name)
            rest = context
            for fact in facts:
                rest = rest.replace(" " + fact, "", 1)
            assert any(rest in book for book in books), rest
            assert split_of(name, tuple(facts)) == split
            if exam.batch.where["length"] == 0:
                assert rest == "" and len(context) < 256


def test_answers_follow_from_the_facts_in_the_context() -> None:
    for exam in SMALL.exams("test"):
        name = exam.batch.where["question"]
        for context, question, answer in rows(exam):
            facts = told(context, name)
            assert len(facts) >= TASKS[name].fewest and answer[:-1] in " ".join(facts)
            if name == "qa1":
                moves = [fact for fact in facts if fact.startswith(question.split()[-1].rstrip("?"))]
                assert moves[-1].rstrip(".").split()[-1] + "\n" == answer
            if name == "qa5" and question.startswith("What"):
                giver, receiver = re.fullmatch(r"What did (\w+) give to (\w+)\?", question).groups()
                gifts = [fact for fact in facts if re.match(rf"{giver} \w+ the \w+ to {receiver}\.", fact)]
                assert gifts[-1].split()[3] + "\n" == answer


def test_items_are_uniform_over_all_that_fit() -> None:
    task = BABILong(questions=("qa1",), length=256)
    items = [told.item for told in task._items(Random(0), SIMULATOR, "train", "qa1", 256, 4000)]
    shares = Counter(len(item.facts) for item in items)
    # All stories of 2 and 4 facts fit 256 bytes, and each story has one of either.
    assert abs(shares[2] - shares[4]) < 4 * (2 * shares[2]) ** 0.5
    assert shares[2] > 4000 / 5 and max(shares) <= 10
    assert len({(item.facts, item.question) for item in items}) > 3000
    first = Counter(
        len(task._items(Random(seed), SIMULATOR, "train", "qa1", 256, 1)[0].item.facts) for seed in range(200)
    )
    assert first[2] > 40 and first[4] > 40


def test_a_question_that_does_not_fit_is_left_out_with_its_reason() -> None:
    task = BABILong(length=128, test_lengths=(0, 100, 128, 256), samples=3)
    least = task.minimum("qa3")
    assert 128 < least <= 256
    left_out = task.left_out()
    assert left_out["qa3", 128] == left_out["qa3", 256] == f"qa3 needs a training length of at least {least}."
    assert ("qa3", 0) in left_out and left_out["qa4", 100] == f"qa4 needs a length of at least {task.minimum('qa4')}."
    assert ("qa1", 100) not in left_out and not any(key[1] != 100 for key in left_out if key[0] != "qa3")
    cells = {(exam.batch.where["question"], exam.batch.where["length"]) for exam in task.exams("test")}
    everything = {(question, length) for question in task.questions for length in task.test_lengths}
    assert cells == everything - set(left_out)
    texts = [BYTES.decode(row) for step in range(10) for row in task.training(0, step, 1.0, 2048).tokens.numpy()]
    assert not any("Where was" in text for text in texts) and SMALL.left_out() == {}


def test_minimum_is_reached_by_the_longest_of_the_shortest_stories() -> None:
    for name in SMALL.questions:
        fact, question = TASKS[name].extremes()[1:]
        prompt = (" " + fact) * TASKS[name].fewest + "\n" + question.strip() + " "
        assert SMALL.minimum(name) == len(prompt) + max(len(label) for label in TASKS[name].labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 64}, "at least 94, not 64"),
        ({"length": 128, "questions": ("qa3",)}, "at least 201, not 128"),
        ({"length": 512, "template": "instructed"}, "at least 569"),
        ({"test_lengths": (64,)}, "0 or a length of at least 94"),
        ({"questions": ("qa21",)}, "qa1, qa2, qa3, .*qa20, not"),
        ({"questions": ()}, "qa1, qa2"),
        ({"questions": ("qa1", "qa1")}, "different"),
        ({"samples": 0}, "samples of at least 1"),
        ({"test_lengths": (-1,)}, "test_lengths of at least 0"),
        ({"template": "official"}, "compact, instructed or harness"),
    ],
)
def test_impossible_settings_say_what_to_do(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BABILong(**settings)


def test_unknown_split_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="validation or test"):
        next(SMALL.exams("train"))


def test_registry_creates_it_from_lists() -> None:
    task = create("babilong", questions=["qa1", "qa2"], length=128, test_lengths=[0, 128])
    assert task.questions == ("qa1", "qa2") and task.test_lengths == (0, 128)
    assert BABILong(length=128).test_lengths == (0, 128, 256, 512)
    assert SMALL.data_hash() and SMALL.vocab == 256 and SMALL.protocol == "trained"
