"""What parts two documents is told by its place: a text may hold the same byte, or the same token."""

from __future__ import annotations

import json
import math
from itertools import cycle
from random import Random

import pytest
import torch

from tasks.language_modelling.task import LanguageModelling
from tasks.task import IGNORE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """Texts of which a fifth is the byte 0, or, once in a while, <|endoftext|>."""
    draws, splits = Random(0), cycle(["train", "train", "validation", "test"])
    text = lambda: "".join(draws.choice(["\0", "a", "sea ", "whale", " the <|endoftext|>"]) for _ in range(300))  # noqa: E731
    records = [{"id": i, "split": next(splits), "text": text()} for i in range(24)]
    file = tmp_path_factory.mktemp("corpus") / "zeros.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    return str(file)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
def test_a_uniform_guesser_scores_the_vocabulary_on_text_with_separators_in_it(corpus, tokenizer):
    if tokenizer != "bytes":
        pytest.importorskip("tokenizers", reason="tokenizers other than bytes are an extra")
    for cross in (False, True):
        task = LanguageModelling(corpus, 64, (64, 256), 0, 0, tokenizer, cross)
        marks = {(m.metric, m.where.get("length")): m for m in task.floors()["floor: uniform"]}
        for length in (64, 256):
            bits = marks["bits_per_byte", length]
            if tokenizer == "bytes":
                assert (bits.value, bits.count) == (8.0, sum(map(len, task._tokens("test"))))
            else:
                count = sum(int((e.batch.targets != IGNORE).sum()) for e in task.exams("test")) // 2
                assert count == int(task._tokens("test").lengths.sum())
                assert bits.value * bits.count == pytest.approx(count * math.log2(task.vocab))


def test_only_what_parts_documents_is_not_asked_in_training(corpus):
    task = LanguageModelling(corpus, 64, (64,), cross_documents=True)
    batch, flat = task.training(0, 0, 0.0, 64 * 400), task._tokens("train").flat
    starts = set(task._tokens("train").starts[:-1].tolist())
    hidden = 0
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        window = torch.tensor(flat.copy()).long().unfold(0, 64, 1)
        first = int((window == tokens).all(1).nonzero()[0])
        told = [i for i in range(64) if first + 1 + i in starts]
        assert (targets == IGNORE).nonzero().flatten().tolist() == told
        hidden += len(told)
    assert hidden and (batch.targets == 0).any()
