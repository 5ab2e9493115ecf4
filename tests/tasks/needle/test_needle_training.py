"""The needle's training: which samples are drawn, how long, how fast, and none that an evaluation asks."""

from __future__ import annotations

import math
import sys
from random import Random

import pytest

from tasks.needle.haystack import NOISE
from tasks.needle.task import CURRICULUM, Needle
from tasks.needle.template import split_of
from tasks.needle.variants import SINGLE as VARIANTS
from tasks.needle.words import words
from tests.support.needle_rows import COMPACT, collapsed, rows


def test_training_rows_mix_the_variants_evenly_and_take_prose_from_training_books(compact):
    batch = compact.training(7, 1, 1.0, 64 * 32)
    prose, kinds = collapsed("train") + " ", []
    for text in rows(batch):
        variant = next(v for v in VARIANTS[::-1] if COMPACT[v].fullmatch(text))
        before, key, value, after = COMPACT[variant].fullmatch(text).groups()
        assert split_of(key, value) == "train"
        if variant == "s-niah-2" and before + after in (NOISE + " ") * 9:
            variant = "s-niah-1"
        assert variant == "s-niah-1" or before + after in prose * 2
        kinds.append(variant)
    counts = [kinds.count(variant) for variant in VARIANTS]
    assert max(counts) - min(counts) <= 1 and sum(counts) == len(kinds)


def test_every_variant_has_its_turn_even_where_a_batch_is_one_row():
    task = Needle(length=64, samples=1)
    ends = {
        bytes(task.training(0, step, 1.0, 1).tokens[0].tolist()).rsplit(b"=", 1)[1].count(b"-") for step in range(6)
    }
    assert ends == {0, 1}


def test_training_lengths_grow_with_progress_and_spread_log_uniformly():
    task = Needle(length=512)
    start = {task.training(0, step, 0.0, 1).tokens.shape[1] for step in range(50)}
    assert start == {8 * math.ceil(task.shortest / 8)}
    late = sorted(task.training(0, step, 1.0, 1).tokens.shape[1] for step in range(400))
    assert late[0] < 40 and 480 < late[-1] <= 512
    median = math.sqrt(task.shortest * 512)
    assert abs(math.log(late[200] / median)) < 0.25
    middle = [task.training(0, step, CURRICULUM / 2, 1).tokens.shape[1] for step in range(100)]
    assert 100 < max(middle) <= 8 * math.ceil(median / 8)


@pytest.mark.parametrize("template", ["compact", "ruler"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_needles_lie_anywhere(template, variant):
    task = Needle((variant,), template, length=4096)
    draws, sign = Random(0), b"\n" if template == "compact" else b"One of the special"
    samples = [task.template.draw(draws, "train", variant, 4096) for _ in range(40)]
    depths = sorted(bytes(sample.prompt).index(sign) / 4096 for sample in samples)
    assert depths[0] < 0.2 and 0.3 < depths[20] < 0.7 and depths[-1] > 0.8


def test_the_number_of_training_tokens_is_kept_at_every_length():
    task = Needle(length=512)
    assert all(3500 < task.training(0, step, 1.0, 4096).tokens.numel() <= 4096 for step in range(30))


def test_training_and_exams_never_share_a_sample():
    task = Needle(length=64, test_lengths=(64, 128), samples=20)  # of fewer values any may be trained
    trained = {text.rsplit("\n", 1)[1] for step in range(60) for text in rows(task.training(0, step, 1.0, 4096))}
    asked = {
        split: {text.rsplit("\n", 1)[1] for exam in task.exams(split) for text in rows(exam.batch)}
        for split in ("validation", "test")
    }
    assert len(trained) > 2500 and len(asked["test"]) > 300
    assert not trained & asked["test"] and not trained & asked["validation"] and not asked["test"] & asked["validation"]
    values = {pair.split("=")[1] for pair in trained}
    assert len(values & {pair.split("=")[1] for pair in asked["test"]}) > 50  # no value is kept from training


def test_the_share_of_pairs_that_belong_to_each_split():
    splits = [split_of(key, str(value)) for key in words().nouns[:20] for value in range(1000, 1500)]
    shares = [splits.count(split) / len(splits) for split in ("train", "validation", "test")]
    assert shares == [pytest.approx(share, abs=0.015) for share in (205 / 256, 25 / 256, 26 / 256)]


def test_a_training_batch_is_drawn_in_few_calls():
    """A batch must take much less than a training step; calls are counted, since times differ by more than a bound leaves."""
    task, calls = Needle(length=128), 0
    for step in (0, 1):  # what is drawn once, and imported once
        task.training(0, step, 1.0, 32 * 128)

    def count(frame, event, argument) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        task.training(0, 2, 1.0, 32 * 128)
    finally:
        sys.setprofile(None)
    assert calls < 400 * 32  # some 230 a row measured
