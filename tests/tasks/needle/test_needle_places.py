"""A needle lies about where its row says, in scripts with blanks and without; RULER's depths, keys and sentences are its own."""

from __future__ import annotations

import random
import sys
import types
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.needle import places
from tasks.needle import task as needle
from tasks.needle.places import sentence_starts, word_gap
from tasks.needle.readers import place_of
from tasks.needle.task import COMPACT_DEPTHS, Needle

SIGNS = {
    "chinese": ("一二三四五六七八九十山水火木金土日月", "。"),
    "japanese": ("あいうえおかきくけこさしすせそ", "。"),
    "thai": ("กขคงจฉชซญดตถทธนบปผ", " "),
    "without any mark": ("абвгдежз", ""),
    "greek": ("αβγδεζηθ ικλμ ", ". "),
    "english": ("the sea was calm and a whale came ", ". "),
}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SIGNS)), st.integers(300, 3000), st.floats(0, 1), st.integers(0, 2**32))
def test_the_measured_place_is_the_depth_in_every_script(script, size, depth, seed):
    letters, end = SIGNS[script]
    draws = random.Random(seed)
    text = "".join("".join(draws.choices(letters, k=draws.randint(8, 30))) + end for _ in range(size // 10))
    filler = text.encode()[draws.randrange(3) :]  # a passage may begin within a character
    place = word_gap(filler, depth)
    assert abs(place / len(filler) - depth) <= max(0.05, 70 / len(filler))
    assert not place or filler[place:].decode() is not None  # no character is cut
    starts = sentence_starts(text, "own")
    assert starts[0] == 0 and starts == sorted(set(starts)) and starts[-1] < max(1, len(text))
    at = [*starts, len(text)][int(depth * len(starts))]
    assert abs(at / len(text) - depth) < 0.2


def test_words_and_plain_sentences_are_never_cut():
    text = b"quite unable to go on, he said at last"
    assert [text[word_gap(text, d) :][:5] for d in (0.0, 0.1, 0.5, 0.99)] == [b"quite", b"quite", b"on, h", b"last"]
    assert word_gap(b"short", 0.9) == 0 and word_gap(b"short", 1.0) == 5 and word_gap(b"", 0.3) == 0
    english = "It was so. Was it? It was! And so on"
    assert [english[i:][:3] for i in sentence_starts(english, "own")] == ["It ", "Was", "It ", "And"]


@pytest.mark.parametrize("template", ["compact", "ruler"])
def test_labels_of_a_chinese_haystack_hold(template, tmp_path):
    draws = random.Random(0)
    text = lambda: "".join("".join(draws.choices(SIGNS["chinese"][0], k=20)) + "。" for _ in range(60))  # noqa: E731
    file = tmp_path / "signs.txt"
    file.write_text("\n<|endoftext|>\n".join(text() for _ in range(4)), encoding="utf-8")
    length = 256 if template == "compact" else 6000
    task = Needle(("s-niah-2",), template, length, (length,), (0.0, 0.3, 0.6, 1.0), 2, corpus=str(file))
    seen = 0
    for exam in task.exams("test"):
        for row in exam.batch.tokens[:, : exam.prompt]:
            prompt = bytes(row.tolist()).decode("utf-8", "replace")
            key, value = _pair(prompt, template)
            place = place_of(task.template, "s-niah-2", prompt, key, value)
            assert place == pytest.approx(exam.batch.where["depth"], abs=0.12)
            seen += 1
    assert seen == 8


def _pair(prompt: str, template: str) -> list[str]:
    if template == "compact":
        return next(line.split("=") for line in prompt.split("\n") if line.isascii() and line[-5:-4] == "=")
    return prompt.split(" for ", 1)[1].split(".")[0].split(" is: ")


def _depths(template: str, variant: str, count: int, **more) -> list[float]:
    """Where the needle of each question lies, measured."""
    length = 8192 if template == "ruler" else 512
    task = Needle((variant,), template, length, (length,), samples=count, words="own", **more)
    found = []
    for depth in task.depths:
        draws = Random(repr(depth))
        for _ in range(count // len(task.depths)):
            sample = task.template.draw(draws, "test", variant, length, depth)
            prompt = bytes(sample.prompt).decode("utf-8", "replace")
            found.append(place_of(task.template, variant, prompt, sample.keys[0], sample.values[0]))
    return found


@pytest.mark.parametrize(
    ("template", "variant", "share"),
    [
        ("compact", "s-niah-1", 0.2),
        ("compact", "s-niah-2", 0.2),
        ("ruler", "s-niah-1", 0.1),
        ("ruler", "s-niah-2", 0.125),
    ],
)
def test_how_many_needles_lie_in_the_last_tenth(template, variant, share):
    """0.2 with five depths of which 1 is the end; RULER's 0.1 among lines and, by 5 of 40 depths from 0.9 on, 0.125 in prose."""
    if template == "compact":
        assert sum(d >= 0.9 for d in COMPACT_DEPTHS) / 5 == share
    elif variant == "s-niah-2":
        task = Needle((variant,), "ruler", 1024)
        assert task.depths == (None,) and sum(d >= 0.9 for d in task.template.DEPTHS) / 40 == share
    found = _depths(template, variant, 300)
    assert sum(place >= 0.9 for place in found) / len(found) == pytest.approx(share, abs=0.04)


def test_a_row_of_rulers_names_its_keys_and_sentences_and_no_depth(monkeypatch):
    task = Needle(("s-niah-1", "s-niah-2"), "ruler", 1024, (1024,), samples=2, words="own")
    wheres = [exam.batch.where for exam in task.exams("test")]
    assert all("depth" not in where and where["keys"] == "own" for where in wheres) and task.exam_version == 2
    assert {where.get("sentences") for where in wheres} == {None, task.template.splitter}
    assert sum(len(exam.batch.tokens) for exam in task.exams("test")) == 4
    compact = Needle(samples=1, length=64, test_lengths=(64,))
    assert {exam.batch.where["depth"] for exam in compact.exams("test")} == set(COMPACT_DEPTHS)
    assert compact.exam_version == 1 and Needle(digits=1).exam_version == 2


def test_punkt_and_rulers_lists_are_used_where_they_are(monkeypatch):
    class Punkt:
        def span_tokenize(self, text):
            return [(0, 9), (10, len(text))] if len(text) > 10 else [(0, len(text))]

    hashes = [Needle(("s-niah-2",), "ruler", 1024, words="own").data_hash()]
    monkeypatch.setattr(places, "_punkt", lambda: Punkt())
    hashes.append(Needle(("s-niah-2",), "ruler", 1024, words="own").data_hash())
    assert places.splitter() == "punkt" and hashes[0] != hashes[1]  # what another splitter wrote is another evaluation
    assert sentence_starts("Mr. Knox said that he would not. So it was.", "punkt") == [0, 10]
    task = Needle(("s-niah-2",), "ruler", 1024, (1024,), (0.5,), samples=2, words="own")
    for exam in task.exams("test"):
        assert exam.batch.where["sentences"] == "punkt" and exam.prompt + 128 <= 1024
        assert task.evidence(exam, 0)
    lists = types.SimpleNamespace(RandomWord=lambda: types.SimpleNamespace(filter=lambda **_: ["aa", "bb"]))
    monkeypatch.setitem(sys.modules, "wonderwords", lists)
    monkeypatch.setattr(needle, "word_lists_installed", lambda: True)
    from tasks.needle.words import words

    words.cache_clear()
    try:
        theirs = Needle(("s-niah-1",), "ruler", 1024, (1024,), samples=1)
        assert theirs.words == "wonderwords" and Needle().words == "own"
        assert next(theirs.exams("test")).batch.where["keys"] == "wonderwords"
    finally:
        words.cache_clear()


@pytest.mark.parametrize(("variant", "values"), [("mq-niah", "uuids"), ("mv-niah", "uuids"), ("s-niah-3", "uuids")])
def test_every_right_answer_fits_what_may_be_generated(variant, values):
    task = Needle((variant,), "ruler", 2048, (2048,), samples=3, values=values, words="own")
    for exam in task.exams("test"):
        answers = [task.truth(exam, row) for row in range(len(exam.batch.tokens))]
        assert max(map(len, answers)) <= exam.generate and exam.prompt + exam.generate <= 2048
    assert exam.generate == 128 if variant == "s-niah-3" else exam.generate > 128


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"length": 10**12}, "lengths must be at most 1,073,741,824 tokens"),
        ({"test_lengths": (128, 10**30)}, "lengths must be at most"),
        ({"digits": 10**9}, "at least 1 and at most 64"),
        ({"uuid_groups": 10**9}, "at least 1 and at most 64"),
        ({"samples": 10**12}, "at most 1,000,000"),
        ({"depths": (float("nan"),)}, "depths must lie between"),
        ({"variants": ("s-niah-1", "s-niah-1")}, "variants name something twice"),
        ({"depths": (0.5, 0.5)}, "depths name something twice"),
        ({"test_lengths": (128, 128)}, "test_lengths name something twice"),
    ],
)
def test_absurd_settings_are_refused_at_once(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Needle(**settings)
