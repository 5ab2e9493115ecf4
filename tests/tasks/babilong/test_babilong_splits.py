"""BABILong: equal seeds give equal bytes, and no split sees another's stories or texts."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.story import Item
from tasks.babilong.questions import SIMULATOR, draw, least_length, official_most, split_of
from tasks.babilong.task import BABILong
from tasks.text.tokenizer import BYTES
from tests.support.babilong_rows import SMALL, rows, told


def digest(batches: list) -> str:
    parts = [part.numpy().tobytes() for batch in batches for part in (batch.tokens, batch.targets)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    again = BABILong(length=256, test_lengths=(0, 256, 512), samples=12)
    for step in (7, 8, 7):
        assert digest([SMALL.training(3, step, 0.7, 4096)]) == digest([again.training(3, step, 0.7, 4096)])
    assert digest([SMALL.training(3, 7, 0.7, 4096)]) != digest([SMALL.training(4, 7, 0.7, 4096)])
    assert digest([SMALL.training(3, 7, 0.7, 4096)]) != digest([SMALL.training(3, 8, 0.7, 4096)])
    for split in ("validation", "test"):
        assert digest([e.batch for e in SMALL.exams(split)]) == digest([e.batch for e in again.exams(split)])


def test_golden_bytes() -> None:
    assert (
        digest([SMALL.training(0, step, step / 4, 2048) for step in range(4)])
        == "1f1e41bfd88f87c03fea3bc0dd0a7bff678e1d769c60d5d517161676478068ec"
    )
    assert (
        digest([exam.batch for exam in SMALL.exams("test")])
        == "b4ecad0a53f978a3c86311495096a81aecd6ad582fa21049032a7e0bb41f45dc"
    )


def test_training_never_shows_an_exams_story_nor_its_text() -> None:
    seen_stories, seen_contexts = set(), set()
    for step in range(60):
        for row in SMALL.training(0, step, 1.0, 8192).tokens.numpy():
            context, question = BYTES.decode(row).rsplit("\n", 1)
            question = question[: question.index("?") + 1]
            name = "qa4" if question.startswith("What is") else ""
            facts = tuple(told(context, name))
            assert split_of(name or "qa1", facts) == "train"
            seen_stories.add((facts, question))
            seen_contexts.add(context)
    exams = [*SMALL.exams("validation"), *SMALL.exams("test")]
    asked = [(told(c, exam.batch.where["question"]), q, c) for exam in exams for c, q, _ in rows(exam)]
    assert len(seen_stories) > 1500 and len(asked) == 12 * 5 * 4
    for facts, question, context in asked:
        assert (tuple(facts), question) not in seen_stories and context not in seen_contexts


def test_splits_share_the_beginnings_as_they_say() -> None:
    shares = Counter(split_of("qa1", ("A.", str(number))) for number in range(5000))
    assert abs(shares["train"] / 5000 - 0.6) < 0.03 and abs(shares["test"] / 5000 - 0.2) < 0.03
    assert shares.total() == 5000 and set(shares) == {"train", "validation", "test"}


@pytest.mark.parametrize("name", ["qa4", "qa20"])
def test_splits_have_every_answer_as_often(name: str) -> None:
    counts: dict[str, Counter[str]] = {"train": Counter(), "validation": Counter(), "test": Counter()}
    for seed in range(6000):
        items = list(TASKS[name].story(Random(seed)))
        counts[split_of(name, items[-1].facts)].update(item.answer for item in items)
    total = sum(counts.values(), Counter())
    for split, found in counts.items():
        assert found.total() / total.total() > 0.15, split
        for answer, count in total.items():
            share = count / total.total()
            sigma = (share * (1 - share) / found.total()) ** 0.5
            assert abs(found[answer] / found.total() - share) < 4 * sigma, (split, answer)


@pytest.mark.parametrize("name", ["qa4", "qa15", "qa17", "qa18", "qa20"])
def test_no_exam_asks_a_question_twice(name: str) -> None:
    for split in ("validation", "test"):
        items = BABILong((name,), length=512)._exam_items(SIMULATOR, split, name, 0)
        assert len({(item.facts, item.question) for item in items}) == len(items) > 50


def test_where_few_questions_fit_all_are_asked_once() -> None:
    def short(item: Item) -> bool:
        return len(item.facts) == 1

    found = draw(Random(0), SIMULATOR, "test", "qa20", 50, 1, short)
    assert len(found) == len({told.item for told in found}) == 4  # a quarter of the 16 first facts
    assert {told.item.facts for told in draw(Random(0), SIMULATOR, "train", "qa20", 50, 1, short)}.isdisjoint(
        told.item.facts for told in found
    )


def test_the_length_filter_of_other_templates_is_babilongs() -> None:
    task = BABILong(
        ("qa2",), length=1000, test_lengths=(1000,), samples=40, template="instructed", tokenizer="bpe:2048"
    )
    items = task._exam_items(SIMULATOR, "test", "qa2", 1000)
    assert all(len(item.facts) + 1 <= (1000 - 300) // 8 for item in items)
    assert official_most(1000) == 86 and least_length(86) <= 1000 < least_length(87)


def released(folder: Path, name: str, train: int, test: int) -> str:
    """A folder of stories written as bAbI's files are, some of them told in both splits."""
    folder.mkdir()
    for split, first, count in (("train", 0, train), ("test", train // 2, test)):
        lines = []
        for seed in range(first, first + count):
            item = list(TASKS[name].story(Random(seed)))[0]
            lines += [f"{place} {fact}" for place, fact in enumerate(item.facts, 1)]
            supports = " ".join(str(index + 1) for index in item.supports)
            lines.append(f"{len(item.facts) + 1} {item.question}\t{item.answer}\t{supports}")
        (folder / f"{name}_x_{split}.txt").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.mark.parametrize("taught", ["simulator", "files"])
def test_no_test_question_of_the_other_source_may_have_been_trained(tmp_path, taught) -> None:
    """Two facts are the whole of qa4's stories, so that a few thousand lessons tell nearly all of them."""
    files = released(tmp_path / "tasks", "qa4", 600, 600)
    source, other = (SIMULATOR, files) if taught == "simulator" else (files, SIMULATOR)
    task = BABILong(("qa4",), 256, (0,), 500, source=source, test_sources=(other,))
    asked = {(item.facts, item.question) for item in task._exam_items(other, "test", "qa4", 0)}
    lessons = draw(Random(0), source, "train", "qa4", 4000, 2, lambda item: True)
    trained = {(told.item.facts, told.item.question) for told in lessons}
    assert len(asked) > 20 and len(trained) > 300 and not asked & trained
