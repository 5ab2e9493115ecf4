"""Who does not look for the needle: what they score, and that what was trained tells nothing of what is asked."""

from __future__ import annotations

import pytest

from tasks.needle.task import Needle
from tasks.needle.template import FEWEST_VALUES, split_of
from tasks.rng import stream

SMALL = {"length": 64, "test_lengths": (64,), "key_letters": 4, "digits": 1}


@pytest.mark.parametrize("values", [None, "words"])
def test_a_value_never_trained_with_this_key_is_no_better_than_any(values):
    """With one digit it was right in .369 when training left a fifth of the pairs to the other splits."""
    task = Needle(("s-niah-1", "s-niah-2"), samples=100, depths=(0.5,), values=values, **SMALL)
    floors = task.floors()
    cheat, floor = floors["cheat: a value never trained with this key"], floors[next(iter(floors))]
    assert [(m.metric, m.where, m.count) for m in cheat] == [(m.metric, m.where, m.count) for m in floor]
    exact = [m.value for m in cheat if m.metric == "compact_exact_match"]
    chance = 1 / task.template.values["s-niah-1"].count
    assert sum(exact) / len(exact) < chance + 0.06


def test_few_values_belong_to_every_key_in_every_split_and_many_to_one():
    few, many = Needle(**SMALL).template, Needle().template
    assert not few.parted("s-niah-1") and many.parted("s-niah-1") and many.values["s-niah-1"].count > FEWEST_VALUES
    pairs = {
        split: {few.pairs(draws, split, "s-niah-1")[0] for draws in [stream("x", split)] for _ in range(6000)}
        for split in ("train", "test")
    }
    assert {split_of(*pair) for pair in pairs["train"]} == {"train", "validation", "test"}
    key = next(iter(pairs["train"]))[0]
    assert {value for other, value in pairs["train"] if other == key} == set("123456789")
    draws = stream("y")
    assert all(split_of(*many.pairs(draws, "test", "s-niah-1")[0]) == "test" for _ in range(200))


@pytest.mark.parametrize("template", ["compact", "ruler"])
def test_a_reader_of_the_last_tenth_answers_what_lies_there_and_nothing_else(template):
    length = 128 if template == "compact" else 2048
    task = Needle(("s-niah-1", "mk-niah-1", "mq-niah"), template, length, (length,), (0.0, 0.5, 1.0), 3, words="own")
    for m in task.floors()["cheat: read the last tenth of the text"]:
        if m.metric.endswith("exact_match") and m.where["variant"] != "mq-niah":
            noise_of_rulers = template == "ruler" and m.where["variant"] == "s-niah-1"
            at_the_end = m.where["depth"] == 1.0 and not noise_of_rulers  # there a line follows always
            assert m.value == at_the_end or noise_of_rulers
