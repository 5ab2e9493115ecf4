"""Language modelling: what is scored, where training windows come from, and the counting models that set the trivial baseline."""

from __future__ import annotations

import hashlib
import json
import math
import string
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

from tasks.harness.floors import sit
from tasks.language_modelling.ngram import Bigram, Trigram, add_k, pair_counts
from tasks.language_modelling.task import LanguageModelling
from tasks.task import Answers
from tasks.text.tokenizer import encoded


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """A corpus whose training texts have 300, 50 and 5 bytes, in which no window occurs twice."""
    sizes = {"a": ("train", 300), "b": ("train", 50), "c": ("train", 5), "d": ("validation", 80), "e": ("test", 103)}
    sizes |= {"f": ("test", 41)}
    lines = [
        {"id": name, "split": split, "text": "".join(Random(name).choices(string.printable[:90], k=size))}
        for name, (split, size) in sizes.items()
    ]
    file = tmp_path_factory.mktemp("corpus") / "small.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def _scored(task: LanguageModelling, length: int, split: str = "test") -> Counter:
    """How often each byte is asked at one window length."""
    seen: Counter = Counter()
    for exam in task.exams(split):
        if exam.batch.where["length"] == length:
            assert torch.equal(exam.batch.tokens[:, 1:], exam.batch.targets[:, :-1])
            seen.update(int(t) for t in exam.batch.targets.flatten())
    return seen


@pytest.mark.parametrize("length", [8, 17, 40])
def test_every_byte_is_scored_exactly_once(small, length):
    task = LanguageModelling(small, length=8, test_lengths=(8, 17, 40), test_bytes=0)
    texts = encoded("test", small)
    assert _scored(task, length) == Counter(int(byte) for text in texts for byte in text)


def test_windows_never_cross_a_document(small):
    task = LanguageModelling(small, length=40, test_lengths=(40,), test_bytes=0)
    texts = [b"\0" + bytes(text) for text in encoded("test", small)]
    windows = [
        bytes([*row[:1].tolist(), *t.tolist()]) for e in task.exams("test") for row, t in zip(*e.batch[:2], strict=True)
    ]
    assert windows and all(any(window in text for text in texts) for window in windows)
    assert sum(window[0] == 0 for window in windows) == len(texts)  # a document's first byte is asked after the byte 0


def test_a_limit_on_bytes_scores_the_same_places_at_every_length():
    task = LanguageModelling(length=64, test_lengths=(64, 256), test_bytes=4096)
    short, long = _scored(task, 64), _scored(task, 256)
    assert short == long and sum(short.values()) == 4096
    starts = [span.start for span in task.spans("test", 256)]
    book = len(encoded("test")[0])
    assert len(starts) == 16 and starts[0] < book / 16 and starts[-1] > book * 0.9  # spread over the book


def test_validation_is_scored_at_the_training_length_alone():
    task = LanguageModelling(length=64, test_lengths=(64, 256), validation_bytes=640)
    exams = list(task.exams("validation"))
    assert sum(e.batch.targets.numel() for e in exams) == 640
    assert {e.batch.where["length"] for e in exams} == {64}


def test_training_windows_come_uniformly_from_every_place_of_the_training_books(small):
    task = LanguageModelling(small, length=10, test_lengths=(10,))
    books = [b"\0" + bytes(text) for text in encoded("train", small)]
    places = Counter()
    for step in range(20):
        batch = task.training(0, step, 0.0, 1000)
        assert batch.tokens.shape == (100, 10)
        for row, targets in zip(batch.tokens, batch.targets, strict=True):
            window = bytes([*row.tolist(), int(targets[-1])])
            where = [(i, book.find(window)) for i, book in enumerate(books) if window in book]
            assert where  # never across two books, never from another split
            places[where[0]] += 1
    assert {book for book, _ in places} == {0, 1}  # a book of 5 bytes holds no window of 11
    assert places[(0, 0)] and places[(0, 290)] and places[(1, 40)]  # first and last places
    share = sum(n for (book, _), n in places.items() if book == 1) / 2000
    assert abs(share - 41 / 332) < 0.03  # by bytes, not by books


def test_training_is_a_pure_function_of_seed_and_step():
    task = LanguageModelling(length=32)
    first = task.training(1, 5, 0.0, 320)
    again = LanguageModelling(length=32).training(1, 5, 0.9, 320)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.tokens, task.training(2, 5, 0.0, 320).tokens)
    assert not torch.equal(first.tokens, task.training(1, 6, 0.0, 320).tokens)
    digest = hashlib.sha256(first.tokens.numpy().astype(np.uint8).tobytes()).hexdigest()
    assert digest == "6a7c1c0fb23b93c5f3b23ebfaa09c7fa132b2407464939c7fbb01fd048368388"


def test_the_marks_of_known_answers():
    task = LanguageModelling(length=16, test_lengths=(16, 32), test_bytes=64)
    worse_with_position = torch.arange(32) * -math.log(2)

    def answer(exam):
        shape = exam.batch.targets.shape
        return Answers(worse_with_position[: shape[1]].expand(shape), torch.zeros(shape, dtype=torch.bool))

    found = sit(task, answer)
    assert {m.where["unit"] for m in found} == {"byte"}
    marks = {(m.metric, *(v for k, v in m.where.items() if k != "unit")): (m.value, m.count) for m in found}
    assert marks[("bits_per_byte", 16)] == (pytest.approx(7.5), 64)
    assert marks[("bits_per_byte", 32)] == (pytest.approx(15.5), 64)
    assert marks[("perplexity", 32)] == (pytest.approx(2**15.5), 64)  # of the mean, not a mean of perplexities
    assert marks[("bits_per_byte_at_position", 0, 8)] == (pytest.approx(3.5), 16)
    assert marks[("bits_per_byte_at_position", 8, 16)] == (pytest.approx(11.5), 16)
    assert marks[("bits_per_byte_at_position", 16, 32)] == (pytest.approx(23.5), 32)
    assert len(marks) == 9 and {key for key in marks if key[0] == "word_perplexity"} == {
        ("word_perplexity", n) for n in (16, 32)
    }


def test_the_oracle_is_certain():
    task = LanguageModelling(length=64, test_bytes=256)
    marks = sit(task, task.oracle)
    assert all(m.value == (1.0 if m.metric.endswith("perplexity") else 0.0) for m in marks)


def test_the_floors_in_bits_per_byte_of_persuasion():
    task = LanguageModelling(length=256, test_lengths=(256,), test_bytes=0)
    bits = {name: next(m.value for m in marks if m.metric == "bits_per_byte") for name, marks in task.floors().items()}
    assert bits.pop("floor: uniform") == 8.0
    assert bits == {
        "floor: unigram": pytest.approx(4.390, abs=1e-3),
        "floor: bigram, add-0.03": pytest.approx(3.443, abs=1e-3),
        "reference: trigram, Witten-Bell": pytest.approx(2.768, abs=1e-2),
    }


def test_floors_have_the_metrics_and_settings_of_a_model():
    task = LanguageModelling(length=64, test_bytes=256)
    asked = {(m.metric, tuple(m.where.items()), m.count) for m in sit(task, task.oracle)}
    for marks in task.floors().values():
        assert {(m.metric, tuple(m.where.items()), m.count) for m in marks} == asked


def test_counting_models_are_probabilities_that_sum_to_one():
    texts = [np.frombuffer(t, np.uint8) for t in (b"abracadabra", b"banana", b"cab")]
    target = np.arange(256)
    bigram, trigram = Bigram(texts, texts), Trigram(texts)
    for last in (b"a", b"z"):
        for before in (-1, ord("b"), ord("z")):
            place = np.full(256, before), np.full(256, last[0]), target
            assert np.exp(bigram(*place)).sum() == pytest.approx(1)
            # All bytes that were never seen share one symbol: each has the probability that is theirs alone.
            assert np.exp(trigram(*place)).sum() == pytest.approx(1)


def test_counting_models_by_hand():
    texts = [np.frombuffer(t, np.uint8) for t in (b"aab", b"ba")]
    counts = pair_counts(texts)
    assert counts.sum() == 3 and counts[97, 97] == counts[97, 98] == counts[98, 97] == 1  # none across texts
    assert add_k(counts, 0.5)[97, 98] == pytest.approx(1.5 / (2 + 128))

    def probability(before: int, last: int, target: int) -> float:
        return math.exp(Trigram(texts)(*(np.array([x]) for x in (before, last, target)))[0])

    single = (2 + 2 / 256) / (5 + 2)  # p(b): b occurs 2 times of 5, with 2 kinds of bytes
    pair = (1 + 2 * single) / (2 + 2)  # p(b | a): 1 of 2, 2 kinds
    assert probability(-1, 97, 98) == pytest.approx(pair)
    assert probability(98, 97, 98) == pytest.approx(pair)  # "ba" is never followed
    assert probability(97, 97, 98) == pytest.approx((1 + pair) / (1 + 1))


def test_impossible_lengths_are_refused(small):
    with pytest.raises(ValueError, match="longest train text of .* at most 300 bytes, not 301"):
        LanguageModelling(small, length=301, test_lengths=(10,))
    with pytest.raises(ValueError, match="longest test text of .* at most 103 bytes, not 160"):
        LanguageModelling(small, length=40)
    with pytest.raises(ValueError, match="at least 1"):
        LanguageModelling(length=0)
