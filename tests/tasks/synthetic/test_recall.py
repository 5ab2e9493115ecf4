"""What is particular to each of the recall and tracking tasks, and to MAD's six."""

from __future__ import annotations

import inspect
from collections import Counter
from random import Random

import pytest
import torch

import tasks
from tasks.harness.floors import sit
from tasks.task import IGNORE, Answers

MAD = {
    "mad-in-context-recall": {"vocab": 16, "length": 128, "examples": 12800},
    "mad-fuzzy-recall": {"vocab": 16, "length": 128, "examples": 12800, "key_motif": 3, "value_motif": 3},
    "mad-noisy-recall": {"vocab": 32, "length": 128, "examples": 12800, "noise": 0.2, "noise_symbols": 16},
    "mad-selective-copying": {"vocab": 16, "length": 256, "examples": 12800, "copied": 16},
    "mad-compression": {"vocab": 16, "length": 32, "examples": 12800},
    "mad-memorisation": {"vocab": 256, "length": 32, "examples": 256},
}


def _value(marks, metric, **where):
    (value,) = {m.value for m in marks if m.metric == metric and where.items() <= m.where.items()}
    return value


# MQAR


@pytest.mark.parametrize("filler", ["blank", "random"])
def test_mqar_asks_each_key_once_and_no_key_collides(filler):
    task = tasks.create("mqar", pairs=(8,), length=64, vocab=32, filler=filler, samples=50)
    for exam in task.exams("test"):
        for tokens, targets in zip(exam.batch.tokens.tolist(), exam.batch.targets.tolist(), strict=True):
            keys, values = tokens[:16:2], tokens[1:16:2]
            assert len(set(keys)) == len(set(values)) == 8
            again = [i for i in range(16, len(tokens)) if tokens[i] in keys]
            assert [i for i, target in enumerate(targets) if target != IGNORE] == again
            assert Counter(tokens[i] for i in again) == Counter(keys)
            rest = {token for i, token in enumerate(tokens[16:], 16) if i not in again}
            assert rest == {0} if filler == "blank" else 0 not in rest


def test_mqar_gaps_follow_the_power_law():
    for power in (0.01, 1.0):
        task = tasks.create("mqar", pairs=(1,), power=power)
        draws = Random(0)
        seen = Counter(task._gaps(draws, 1, 8)[0] for _ in range(4000))
        weights = [(slot + 1) ** (power - 1) for slot in range(8)]
        for slot, weight in enumerate(weights):
            share = weight / sum(weights)
            assert abs(seen[slot] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_the_order_of_mqars_questions_tells_nothing_of_the_order_of_its_pairs(power):
    task = tasks.create("mqar", pairs=(8,), length=64, power=power, test_lengths=(64,), samples=400)
    for batch in (next(task.exams("test")).batch, task.training(0, 0, 1.0, 64 * 400)):
        right = []
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            asked = [target for target in targets if target != IGNORE]
            right += [value == answer for value, answer in zip(tokens[1:16:2], asked, strict=True)]
        assert abs(sum(right) / len(right) - 1 / 8) < 4 * (7 / 64 / len(right)) ** 0.5


def test_mqar_capacity_is_an_axis():
    task = tasks.create("mqar", pairs=(2, 4), test_pairs=(2, 16), length=64, samples=20)
    marks = task.floors()["floor: any value of the text"]
    assert {(m.where["pairs"], m.where["length"]) for m in marks} == {(p, n) for p in (2, 16) for n in (64, 128, 256)}
    assert _value(marks, "accuracy", pairs=16) == pytest.approx(1 / 16)
    assert _value(marks, "exact_match", pairs=2) == pytest.approx(1 / 4)


def test_saying_the_last_value_solves_one_pair_only():
    task = tasks.create("mqar", pairs=(1, 8), length=32, samples=200)
    marks = task.floors()["floor: last value"]
    assert _value(marks, "accuracy", pairs=1, length=32) == 1
    assert _value(marks, "accuracy", pairs=8, length=32) == pytest.approx(1 / 8)


# Selective copying


def test_selective_copying_strews_its_symbols_evenly():
    task = tasks.create("selective-copying", length=24, copied=4, samples=10)
    draws, places = Random(0), Counter()
    for _ in range(2000):
        tokens = task.draw(draws, {"copied": 4, "length": 24}).tokens
        places.update(i for i, token in enumerate(tokens[:20]) if token)
        assert len(tokens) == 24 and tokens[20:] == [15] * 4
    assert all(abs(places[i] / 2000 - 0.2) < 0.04 for i in range(20))


# State tracking


@pytest.mark.parametrize(
    ("group", "inputs", "order", "given"),
    [
        ("parity", "all", 2, 2),
        ("modular-addition", "all", 5, 5),
        ("s3", "all", 6, 6),
        ("s4", "all", 24, 24),
        ("s4", "swaps", 24, 3),
        ("a5", "all", 60, 60),
        ("a4xz5", "all", 60, 60),
        ("s5", "all", 120, 120),
        ("s5", "swaps", 120, 4),
    ],
)
def test_groups_are_groups(group, inputs, order, given):
    task = tasks.create("state-tracking", group=group, inputs=inputs)
    assert (task.vocab, len(task.inputs)) == (order, given)
    product = task.product
    assert all(product[0][a] == product[a][0] == a for a in range(order))
    assert all(sorted(row) == list(range(order)) for row in product)
    draws = Random(0)
    for a, b, c in ([draws.randrange(order) for _ in range(3)] for _ in range(200)):
        assert product[product[a][b]][c] == product[a][product[b][c]]


def test_permutations_do_not_commute_and_sums_do():
    for group, commutes in (
        ("parity", True),
        ("modular-addition", True),
        ("s3", False),
        ("a5", False),
        ("a4xz5", False),
    ):
        product = tasks.create("state-tracking", group=group).product
        pairs = [(a, b) for a in range(len(product)) for b in range(len(product))]
        assert all(product[a][b] == product[b][a] for a, b in pairs) == commutes


def test_the_commonest_product_knows_the_sign_of_swaps():
    """After t swaps only half of S5 can be reached, so the best guess without memory is 1/60, not 1/120."""
    task = tasks.create("state-tracking", group="s5", inputs="swaps", length=64, test_lengths=(256,), samples=4)
    assert _value(task.floors()["floor: commonest product"], "final_accuracy") == pytest.approx(1 / 60, rel=0.02)
    task = tasks.create("state-tracking", group="s5", length=64, test_lengths=(64,), samples=4)
    assert _value(task.floors()["floor: commonest product"], "accuracy") == pytest.approx(1 / 120)


def test_two_symbols_do_not_track_a_state():
    task = tasks.create("state-tracking", length=32, test_lengths=(64,), samples=100)
    for name, marks in task.floors().items():
        assert abs(_value(marks, "accuracy") - 0.5) < 0.06, name


def test_accuracy_by_place_is_of_the_longest_words_alone():
    task = tasks.create("state-tracking", length=16, test_lengths=(16, 20), samples=10)

    def right_before_place_12(exam):
        hit = (torch.arange(exam.batch.targets.shape[1]) < 12).expand(exam.batch.targets.shape)
        return Answers(torch.zeros(hit.shape), hit)

    found = {
        (m.where["from"], m.where["to"]): (m.value, m.count)
        for m in sit(task, right_before_place_12)
        if m.metric == "position_accuracy"
    }
    assert found == {(0, 8): (1.0, 80), (8, 16): (0.5, 80), (16, 20): (0.0, 40)}


# Forgetting


def test_forgetting_overwrites_as_many_facts_as_it_says():
    task = tasks.create("forgetting", facts=(6,), overwrites=(0, 2, 6), distances=(0, 5), samples=30)
    seen = set()
    for exam in task.exams("test"):
        where = exam.batch.where
        seen.add((where["overwrites"], where["asked"]))
        for tokens in exam.batch.tokens.tolist():
            pairs = list(zip(tokens[: 2 * (6 + where["overwrites"]) : 2], tokens[1::2], strict=False))
            times = Counter(key for key, _ in pairs)
            assert sorted(times.values()) == [1] * (6 - where["overwrites"]) + [2] * where["overwrites"]
            assert times[tokens[-1]] == (2 if where["asked"] == "overwritten" else 1)
            values = {key: [v for k, v in pairs if k == key] for key in times}
            assert all(len(set(v)) == len(v) for v in values.values())  # a new value differs from the old one
            assert tokens[len(pairs) * 2 : -2] == [0] * where["distance"]
    assert seen == {(0, "untouched"), (2, "overwritten"), (2, "untouched"), (6, "overwritten")}


def test_forgetting_tells_stale_answers_from_others():
    task = tasks.create("forgetting", facts=(4,), overwrites=(2,), distances=(0,), samples=30)
    marks = task.floors()["reference: first value of the key"]  # a memory that adds and never overwrites
    assert _value(marks, "accuracy", asked="overwritten") == 0 and _value(marks, "stale_error") == 1
    assert _value(marks, "accuracy", asked="untouched") == 1

    def wrong(exam):  # neither the value that holds nor the one before
        choice = (exam.batch.targets[:, -1] - task.values + 1) % (task.vocab - task.values)
        held = torch.tensor([row[row.index(row[-1]) + 1] for row in exam.batch.tokens.tolist()])
        choice = torch.where(choice + task.values == held, (choice + 1) % (task.vocab - task.values), choice)
        return Answers(torch.zeros(exam.batch.targets.shape), torch.zeros_like(exam.batch.targets).bool(), choice)

    assert _value(sit(task, wrong), "stale_error") == 0


def test_forgetting_trains_on_all_keys_of_a_text():
    task = tasks.create("forgetting", facts=(5,), overwrites=(1,))
    batch = task.training(0, 0, 1.0, 2000)
    assert ((batch.targets != IGNORE).sum(1) == 5).all() and batch.where["asked"] == "all"


def test_forgetting_trains_on_its_longest_distance():
    task = tasks.create("forgetting", facts=(4,), overwrites=(1,), distances=(0, 20))
    assert {task.training(0, step, 1.0, 64).where["distance"] for step in range(60)} == {0, 8, 16, 20}


# MAD


@pytest.mark.parametrize("name", MAD)
def test_mad_defaults_are_the_papers(name):
    parameters = inspect.signature(tasks.classes()[name]).parameters
    assert {key: parameters[key].default for key in MAD[name]} == MAD[name]
    assert parameters["samples"].default == 1280


@pytest.mark.parametrize("name", MAD)
def test_mad_trains_on_so_many_examples_and_no_more(name):
    task = tasks.create(name, examples=3)
    rows = {tuple(row) for step in range(12) for row in task.training(0, step, 1.0, 1024).tokens.tolist()}
    others = {tuple(row) for step in range(12) for row in task.training(1, step, 1.0, 1024).tokens.tolist()}
    assert len(rows) == len(others) == 3 and not rows & others
    endless = tasks.create(name, examples=0)
    fresh = {tuple(row) for step in range(4) for row in endless.training(0, step, 1.0, 1024).tokens.tolist()}
    assert len(fresh) >= 4 * (1024 // len(next(iter(fresh)))) - 1


def test_noise_has_its_share():
    for noise in (0.2, 0.8):
        task = tasks.create("mad-noisy-recall", noise=noise, samples=50, length=256)
        tokens = next(task.exams("test")).batch.tokens
        assert abs((tokens >= 16).double().mean().item() - noise) < 0.03


def test_fuzzy_keys_vary_in_training_and_are_longest_in_exams():
    task = tasks.create("mad-fuzzy-recall", samples=20, examples=0)

    def lengths(batch) -> set[int]:
        return {len(key) for row in batch.tokens.tolist() for *_, key in task._pairs(row)}

    assert lengths(task.training(0, 0, 1.0, 4096)) == {1, 2, 3}
    assert {n for exam in task.exams("test") for n in lengths(exam.batch)} == {3}


def test_facts_are_the_same_in_all_splits_and_different_for_all_keys():
    task = tasks.create("mad-memorisation", vocab=32, samples=50)
    told: dict[int, set[int]] = {}
    batches = [task.training(0, 0, 1.0, 4096), *(e.batch for s in ("validation", "test") for e in task.exams(s))]
    for batch in batches:
        keys, values = batch.tokens[:, ::2].flatten().tolist(), batch.targets[:, 1::2].flatten().tolist()
        for key, value in zip(keys, values, strict=True):
            told.setdefault(key, set()).add(value)
    assert len(told) == 15 and all(len(values) == 1 for values in told.values())
    assert len(set.union(*told.values())) == 15


def test_a_copied_symbol_stands_right_before_the_sign():
    task = tasks.create("mad-selective-copying", samples=20)
    for row in next(task.exams("test")).batch.tokens.tolist():
        assert row.index(15) == 256 - 17 and row[row.index(15) - 1] < 14
        assert sum(token < 14 for token in row) == 16 and row[-16:] == [14] * 16
