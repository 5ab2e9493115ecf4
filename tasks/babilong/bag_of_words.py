"""A reader who counts words and knows no order: multinomial logistic regression on a bag of words.

It learns from a training split which words go with which answers, without any understanding of who did what when. What it
scores on the test split is a shortcut (`tasks/task.py`): a model that stays below it need not have read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

STEPS = 60  # of L-BFGS, at most
SETTLED = 1e-5  # it ends where a step changes no weight, and the loss, by more
WORDS = 4096  # the most words that are counted: the commonest of the training split


class BagOfWords(NamedTuple):
    """A fitted reader. It says label k with the chance softmax(W x + b)_k, x_i = log(1 + how often word i stands there)."""

    words: dict[Hashable, int]  # place of each counted word
    labels: tuple[Hashable, ...]
    weights: Tensor  # double [words + 1, labels], the last line is b

    def chances(self, examples: Sequence[Iterable[Hashable]]) -> Tensor:
        """Chance of each label, [examples, labels]; words that training never saw are passed over."""
        return (_counted(examples, self.words) @ self.weights).softmax(1)

    def predict(self, examples: Sequence[Iterable[Hashable]]) -> list[Hashable]:
        """The most probable label of each example; of equal ones the first."""
        return [self.labels[best] for best in self.chances(examples).argmax(1).tolist()]


def fit(
    examples: Sequence[Iterable[Hashable]], labels: Sequence[Hashable], *, decay: float = 1.0, words: int = WORDS
) -> BagOfWords:
    """The reader of least `sum of -log chance(label) + decay / 2 |W|^2` over the examples, found by L-BFGS from zero.

    A word is any hashable thing: a string, a token, or a pair such as (question, word), which lets one fit read each
    question in its own way. Equal arguments give equal readers: all is in double precision and in a fixed order, nothing is
    drawn. `words` limits the vocabulary to the commonest; of equally common ones those seen first are kept. Raises
    ValueError without examples, or where examples and labels are not equally many.
    """
    examples = [list(example) for example in examples]
    if not examples or len(examples) != len(labels):
        raise ValueError(
            f"A bag of words is fitted to examples with a label each, not {len(examples)} and {len(labels)}."
        )
    count = Counter(word for example in examples for word in dict.fromkeys(example))
    place = {word: i for i, (word, _) in enumerate(count.most_common(words))}
    known = tuple(dict.fromkeys(labels))
    seen, index = _counted(examples, place), {label: i for i, label in enumerate(known)}
    return BagOfWords(place, known, _weights(seen, torch.tensor([index[label] for label in labels]), len(known), decay))


def _weights(seen: Tensor, truth: Tensor, labels: int, decay: float) -> Tensor:
    """The least loss, [words + 1, labels]; the bias is not decayed."""
    weights = torch.zeros(seen.shape[1], labels, dtype=torch.double)
    wanted = torch.nn.functional.one_hot(truth, labels).double()
    turned = seen.T.contiguous()
    shrink = torch.full((seen.shape[1], 1), decay, dtype=torch.double)
    shrink[-1] = 0.0
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, tolerance_change=SETTLED, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        """Per example, with its gradient left at the weights."""
        said = (seen @ weights).log_softmax(1)
        weights.grad = (turned @ (said.exp() - wanted) + shrink * weights) / len(truth)
        return -((said * wanted).sum() - (shrink * weights.square()).sum() / 2) / len(truth)

    optimiser.step(loss)
    return weights


def _counted(examples: Sequence[Iterable[Hashable]], place: dict[Hashable, int]) -> Tensor:
    """log(1 + count) of every word and a last column of ones, double [examples, words + 1]."""
    counts = np.zeros((len(examples), len(place) + 1))
    for row, example in enumerate(examples):
        found = [place[word] for word in example if word in place]
        np.add.at(counts[row], np.array(found, dtype=np.int64), 1.0)
    logarithms = np.log1p(counts)
    logarithms[:, -1] = 1.0
    return torch.from_numpy(logarithms)
