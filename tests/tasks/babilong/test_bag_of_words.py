"""The logistic regression on a bag of words: what it can read, what it cannot, and that it is the same at every call."""

from __future__ import annotations

import time
from random import Random

import pytest
import torch

from tasks.babilong.bag_of_words import fit


def _texts(count: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """Texts whose label is the word of three that stands in them most often."""
    draws, texts, labels = Random(seed), [], []
    for _ in range(count):
        label = draws.choice("abc")
        texts.append(draws.sample([label] * 4 + ["a", "b", "c", *"xyz"], 10))
        labels.append(label)
    return texts, labels


def test_it_learns_which_words_go_with_a_label():
    reader = fit(*_texts(300, 0))
    texts, labels = _texts(200, 1)
    assert reader.predict(texts) == labels


def test_chances_add_up_and_unknown_words_are_passed_over():
    texts, labels = _texts(100, 0)
    reader = fit(texts, labels)
    chances = reader.chances([["never", "seen"], texts[0]])
    assert chances.sum(1) == pytest.approx([1.0, 1.0])
    assert reader.predict([[*texts[0], "never"]]) == reader.predict([texts[0]]) == [labels[0]]


def test_order_tells_it_nothing():
    forward, backward = ["x", "y"], ["y", "x"]
    reader = fit([forward, backward] * 50, [1, 0] * 50)
    assert torch.equal(reader.chances([forward]), reader.chances([backward]))


def test_pairs_as_words_let_it_read_each_question_in_its_own_way():
    bags = [[(question, word)] for question in "pq" for word in "xy"] * 20
    labels = ["yes", "no", "no", "yes"] * 20  # the exclusive or, which no sum of single words gives
    assert fit(bags, labels).predict(bags[:4]) == ["yes", "no", "no", "yes"]


def test_equal_arguments_give_equal_readers():
    texts, labels = _texts(100, 0)
    assert torch.equal(fit(texts, labels).weights, fit(texts, labels).weights)


def test_the_loss_is_least():
    texts, labels = _texts(60, 0)
    reader = fit(texts, labels, decay=2.0)
    bags = [[place for word in text if (place := reader.words.get(word)) is not None] for text in texts]
    seen = (
        torch.stack([torch.bincount(torch.tensor(bag), minlength=len(reader.words)) for bag in bags]).double().log1p()
    )
    seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
    weights = reader.weights.clone().requires_grad_()
    truth = torch.tensor([reader.labels.index(label) for label in labels])
    missed = torch.nn.functional.cross_entropy(seen @ weights, truth, reduction="sum")
    (missed + weights[:-1].square().sum()).backward()
    assert weights.grad.abs().max() < 0.05


def test_one_label_and_a_limited_vocabulary():
    assert fit([["a"], ["b"]], ["only", "only"]).predict([["c"]]) == ["only"]
    assert list(fit([["a", "b"], ["b", "c"]], [0, 1], words=1).words) == ["b"]


def test_examples_without_a_label_are_refused():
    with pytest.raises(ValueError, match="a label each, not 1 and 2"):
        fit([["a"]], [0, 1])
    with pytest.raises(ValueError, match="a label each, not 0 and 0"):
        fit([], [])


def test_it_takes_a_second_or_two():
    texts, labels = _texts(2000, 0)
    before = time.process_time()
    fit([[*text, *((word, other) for word in text for other in text[:3])] for text in texts], labels)
    assert time.process_time() - before < 5
