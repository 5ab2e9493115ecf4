"""BABILong: equal seeds give equal bytes, and no split sees another's stories or texts."""

from __future__ import annotations

import hashlib
from collections import Counter

from babilong_rows import SMALL, rows, told

from tasks.babilong import BABILong
from tasks.babilong_items import split_of
from tasks.tokenizer import BYTES


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
        == "40fcf76df7dc716ac359c626d05a5dad4fbc6a35660b0a9a57c7a5f0a2f52b7b"
    )
    assert (
        digest([exam.batch for exam in SMALL.exams("test")])
        == "1d4d3678523e66f2371477a4ac44aab233d47dd272f1b316c10e8a4431e07170"
    )


def test_training_never_shows_an_exams_story_nor_its_text() -> None:
    seen_stories, seen_contexts = set(), set()
    for step in range(60):
        for row in SMALL.training(0, step, 1.0, 8192).tokens.numpy():
            context, question = BYTES.decode(row).rsplit("\n", 1)
            question = question[: question.index("?") + 1]
            facts = tuple(told(context, "qa4" if question.startswith("What is") else ""))
            assert split_of(facts[:2]) == "train"
            seen_stories.add((facts, question))
            seen_contexts.add(context)
    exams = [*SMALL.exams("validation"), *SMALL.exams("test")]
    asked = [(told(c, exam.batch.where["question"]), q, c) for exam in exams for c, q, _ in rows(exam)]
    assert len(seen_stories) > 1500 and len(asked) == 12 * 5 * 4
    for facts, question, context in asked:
        assert (tuple(facts), question) not in seen_stories and context not in seen_contexts


def test_splits_share_the_beginnings_as_they_say() -> None:
    shares = Counter(split_of(("A.", str(number))) for number in range(5000))
    assert abs(shares["train"] / 5000 - 0.6) < 0.03 and abs(shares["test"] / 5000 - 0.2) < 0.03
    assert shares.total() == 5000 and set(shares) == {"train", "validation", "test"}
