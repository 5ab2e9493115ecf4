"""What the needle task draws from: values, haystacks and word lists."""

from __future__ import annotations

import re
from random import Random

import pytest

from tasks.needle.haystack import Haystack, books
from tasks.needle.task import Needle
from tasks.needle.values import Number, ShortUuid, Uuid
from tasks.needle.words import words
from tests.support.needle_rows import collapsed


@pytest.mark.parametrize("value", [Number(1), Number(4), ShortUuid(1), ShortUuid(3), Uuid()])
def test_values_have_their_form_and_their_chances(value):
    drawn = [value.draw(Random(i)) for i in range(3000)]
    assert all(re.search(value.pattern, f"a {text}.").group() == text for text in drawn)
    chances = value.chances(drawn[0])
    for place, chance in enumerate(chances):
        letters = [text[place] for text in drawn]
        assert len(set(letters)) == round(1 / chance)
        assert max(map(letters.count, set(letters))) / 3000 == pytest.approx(chance, abs=0.03)
    assert len(chances) == len(drawn[0]) == len(drawn[-1])


def test_a_haystack_is_a_ring():
    ring = Haystack("  one\ntwo   three ")
    assert ring.text == b"one two three " and ring.longest_word == 5
    assert ring.passage(8, 40) == b"three one two three one two three one tw"
    assert ring.words(1, 1) == "two" and ring.words(2, 1) == "three"
    assert ring.words(2, 5) == "three one two three one"
    assert ring.words(0, 3) == "one two three"


def test_the_haystack_of_a_split_is_all_its_books():
    assert books("test").text.decode() == collapsed("test") + " "
    assert books("test") is books("test")


def test_word_lists_are_sorted_distinct_and_plain():
    for each in words():
        assert list(each) == sorted(set(each)) and all(re.fullmatch("[a-z]+", word) for word in each)
    assert len(words().adjectives) >= 150 and sum(len(word) == 5 for word in words().nouns) >= 100
    assert not set(words().adjectives) & set(words().nouns)


def test_the_word_lists_of_wonderwords_are_used_where_asked_for():
    pytest.importorskip("wonderwords")
    theirs = words("wonderwords")
    assert len(theirs.adjectives) == 910 and len(theirs.nouns) > 6000
    task = Needle(("s-niah-1",), "ruler", 1024, samples=1, words="wonderwords")
    assert task.data_hash() != Needle(("s-niah-1",), "ruler", 1024).data_hash()
