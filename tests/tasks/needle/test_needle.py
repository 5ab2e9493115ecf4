"""The needle task: both templates, what is asked in evaluations, and which settings it takes."""

from __future__ import annotations

import hashlib
import re
from itertools import product
from random import Random

import pytest
import torch

from tasks.needle.haystack import NOISE
from tasks.needle.task import Needle
from tasks.needle.template import split_of
from tasks.needle.values import Uuid, Word
from tasks.needle.variants import SINGLE as VARIANTS
from tasks.needle.words import words
from tasks.task import IGNORE
from tests.support.needle_rows import COMPACT, collapsed, rows


@pytest.mark.parametrize("split", ["validation", "test"])
def test_compact_texts_hide_the_asked_value_in_text_of_the_splits_own_books(compact, split):
    prose, noise = collapsed(split) + " ", (NOISE + " ") * 9
    exams = list(compact.exams(split))
    assert exams
    for exam in exams:
        where = exam.batch.where
        assert exam.batch.tokens.shape == (4, where["length"])  # exactly as long as asked
        assert where["haystack"] == ("noise" if where["variant"] == "s-niah-1" else "austen-melville")
        for text in rows(exam.batch):
            before, key, value, after = COMPACT[where["variant"]].fullmatch(text).groups()
            assert key in words().nouns and split_of(key, value) == split
            filler = before + after
            assert filler in (noise if where["variant"] == "s-niah-1" else prose * 2)
            assert not before or before.endswith(" ") or not after
            if where["depth"] in (0, 1):
                assert (before, after)[int(where["depth"])] == ""
            else:
                assert abs(len(before) - where["depth"] * len(filler)) < 25


def test_only_the_answer_is_asked_and_it_ends_with_a_line_break(compact):
    for batch in [compact.training(0, 3, 0.8, 2048), *(exam.batch for exam in compact.exams("test"))]:
        for text, targets in zip(rows(batch), batch.targets.tolist(), strict=True):
            answer = text.rsplit("=", 1)[1] + "\n"
            assert bytes(t for t in targets if t != IGNORE).decode() == answer
            assert all(t == IGNORE for t in targets[: -len(answer)])


def test_the_same_seed_gives_the_same_bytes(compact, ruler):
    def digest(batches) -> str:
        parts = (t.numpy().astype("<i8").tobytes() for batch in batches for t in batch[:2])
        return hashlib.sha256(b"".join(parts)).hexdigest()

    again = Needle(length=64, test_lengths=(64, 129), samples=4)
    assert torch.equal(compact.training(1, 2, 0.5, 999).tokens, again.training(1, 2, 0.5, 999).tokens)
    assert not torch.equal(compact.training(1, 2, 1.0, 64).tokens, compact.training(2, 2, 1.0, 64).tokens)
    assert (
        digest([compact.training(0, 0, 1.0, 999), *(e.batch for e in compact.exams("test"))])
        == "724181b733fda044bee61a594e923ef5c7ef80b7407ce8d01379f6520097445b"
    )
    assert (
        digest([ruler.training(0, 0, 1.0, 999), *(e.batch for e in ruler.exams("validation"))])
        == "affcf278da1fbddfb01d168433781a0f5d5325152875a47a98f3e1bccbd596a7"
    )


@pytest.mark.parametrize("variant", ["s-niah-1", "s-niah-2", "mk-niah-2"])
def test_training_shows_the_ends_that_exams_ask_at(variant):
    task = Needle((variant,), length=128, test_lengths=(128,), samples=1)
    texts = [text for step in range(40) for text in rows(task.training(0, step, 1.0, 4096))]
    first = last = 0
    for text in texts:
        *lines, query = text.removesuffix("\n").split("\n")
        place = next(i for i, line in enumerate(lines) if line.startswith(query.split("=")[0] + "="))
        first += not "".join(lines[:place])
        last += not "".join(lines[place + 1 :])
    assert 0.02 < last / len(texts) < 0.4
    assert first or variant == "mk-niah-2"  # whose first line is the rest of one that was cut


def test_a_cell_does_not_depend_on_the_cells_beside_it():
    wide = Needle(length=64, test_lengths=(64, 128), samples=3)
    narrow = Needle(("s-niah-2",), length=64, test_lengths=(128,), depths=(0.5,), samples=3)
    (exam,) = narrow.exams("test")
    same = [e for e in wide.exams("test") if e.batch.where == exam.batch.where]
    assert len(same) == 1 and torch.equal(same[0].batch.tokens, exam.batch.tokens)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ruler_texts_are_rulers_word_for_word(ruler, variant):
    kind = "uuid" if variant == "s-niah-3" else "number"
    seen = 0
    for exam in ruler.exams("test"):
        where = exam.batch.where
        if where["variant"] != variant:
            continue
        assert (exam.generate, exam.stop) == (128, None)  # a line break ends nothing
        for text in rows(exam.batch):
            seen += 1
            key, value = re.search(r"for ([a-z]+-[a-z]+) mentioned in the provided text is (\S+)$", text).groups()
            assert re.fullmatch(r"[1-9]\d{6}" if kind == "number" else Uuid.pattern, value)
            head = (
                f"A special magic {kind} is hidden within the following text. Make sure to memorize it. "
                f"I will quiz you about the {kind} afterwards.\n"
            )
            tail = (
                f"\nWhat is the special magic {kind} for {key} mentioned in the provided text? "
                f"The special magic {kind} for {key} mentioned in the provided text is {value}"
            )
            assert text.startswith(head) and text.endswith(tail)
            context = text[len(head) : -len(tail)]
            needle = f"One of the special magic {kind}s for {key} is: {value}."
            _check_context(context, needle, variant, where["depth"])
            assert exam.prompt == len(text) - len(value) - 1
    assert seen == 2 * 5 * ruler.samples


def _check_context(context: str, needle: str, variant: str, depth: float) -> None:
    if variant == "s-niah-1":
        lines = context.split("\n")
        place = lines.index(needle)
        assert lines[:place] + lines[place + 1 :] == [NOISE] * (len(lines) - 1)
        assert place == min(int(depth * (len(lines) - 1)), len(lines) - 2)
        return
    before, after = context.split(needle)
    prose = collapsed("test") + " "
    assert (before + after.lstrip(" ")).strip() in prose * 2
    assert before.endswith(" ") and after.startswith(" ")
    assert depth > 0 or before == " "
    assert (after == " ") == (depth == 1)
    assert before == " " or re.search(r"[.!?] $", before) or depth == 1
    sentences = [len(re.split(r"(?<=[.!?])\s+", part.strip())) if part.strip() else 0 for part in (before, after)]
    assert sentences[0] == int(sum(sentences) * depth)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ruler_lengths_hold_the_largest_haystack_that_fits(variant):
    least = Needle((variant,), "ruler", length=4096).template.minimum(variant)
    template = Needle((variant,), "ruler", length=least).template
    longest = Word(tuple((max(kind, key=len),) for kind in words()))
    unit = len(NOISE) + 1 if variant == "s-niah-1" else template.haystack("test", variant).longest_word + 1
    for length in (least, least + 1, least + 50, 1000, 3000):
        for i in range(20):
            sample = template.draw(Random(i), "test", variant, length)
            used = len(sample.prompt) + 128
            assert used <= length
            assert length == least or used > length - unit or length < least + 2 * unit
    template.kinds["words"] = longest
    used = len(template.draw(Random(0), "test", variant, least).prompt) + 128
    assert used == least if variant == "s-niah-1" else least - unit < used <= least


@pytest.mark.parametrize(("template", "variant"), list(product(("compact", "ruler"), VARIANTS)))
def test_a_length_below_the_minimum_is_refused_with_the_minimum(template, variant):
    least = Needle((variant,), template, length=4096).template.minimum(variant)
    assert least <= 64 or template == "ruler"
    task = Needle((variant,), template, length=least, test_lengths=(least,), samples=1)
    assert all(len(exam.batch.tokens) for exam in task.exams("test"))
    for short in (1, least - 1):
        for settings in ({"length": short}, {"length": least, "test_lengths": (least, short)}):
            with pytest.raises(ValueError, match=f"{variant} needs a length of at least {least}, not {short}"):
                Needle((variant,), template, **settings)


def test_long_exams_and_a_haystack_longer_than_the_books_end():
    task = Needle(("s-niah-2",), length=64, test_lengths=(600_000,), depths=(0.5,), samples=1)
    (exam,) = task.exams("test")
    assert exam.batch.tokens.shape == (1, 600_000)
    (exam,) = Needle(("s-niah-2",), "ruler", 1024, (100_000,), (0.5,), 1).exams("test")
    assert 99_900 < exam.prompt + 128 <= 100_000


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"variants": ("s-niah-9",)}, "no variant .*s-niah-9.* choose some of s-niah-1"),
        ({"variants": ()}, "no variant"),
        ({"depths": (0.5, 50)}, "depths must lie between 0"),
        ({"samples": 0}, "samples be at least 1"),
        ({"digits": 0}, "digits and uuid_groups must be at least 1"),
        ({"template": "ruler", "length": 1024, "digits": 4}, "RULER's keys and values are fixed"),
        ({"template": "long"}, "no template 'long'"),
        ({"words": "mine"}, "no word lists 'mine'"),
        ({"corpus": "/nowhere"}, "not there"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Needle(**settings)


def test_an_exam_of_the_training_split_is_refused(compact):
    with pytest.raises(ValueError, match="no evaluation 'train': ask for validation or test"):
        next(compact.exams("train"))
