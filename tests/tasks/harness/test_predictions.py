"""Kept answers give the same scores again, and do not pass for answers to another evaluation."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import tasks
from tasks.harness import predictions
from tasks.harness.evaluate import evaluate
from tasks.speed.throughput import Throughput, from_samples, measure

SETTINGS = {
    "needle": {"template": "compact", "variants": ["s-niah-1"], "length": 64, "test_lengths": [64], "samples": 2},
    "babilong": {"questions": ["qa1"], "length": 128, "test_lengths": [128], "samples": 3},
    "mqar": {},
    "language-modelling": {"length": 64, "test_lengths": [64, 4096]},
}


class Bigram(nn.Module):
    """Logits that depend on the last token alone."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(vocab, vocab)

    def forward(self, tokens, state=None):
        return self.table(tokens), tokens[:, -1:]


def sat(name: str) -> tuple[tasks.Task, list, list, list]:
    """A task, its evaluations, an untrained model's measurements and its kept answers as they come back from JSON."""
    task = tasks.create(name, **SETTINGS[name])
    exams = list(task.exams("test"))[-6:]
    task.exams = lambda split: iter(exams)
    model = Bigram(task.vocab)
    kept: list = []
    found = evaluate(model, task, keep=lambda *answered: kept.append(predictions.keep(task, *answered)))
    return task, exams, found, json.loads(json.dumps(kept))


@pytest.fixture(scope="module", params=list(SETTINGS))
def kept(request):
    return sat(request.param)


def test_kept_answers_are_marked_as_they_were(kept):
    task, exams, found, records = kept
    again = predictions.mark(task, exams, records)
    assert [(m.metric, m.count, m.where) for m in again] == [(m.metric, m.count, m.where) for m in found]
    assert [m.value for m in again] == pytest.approx([m.value for m in found], rel=1e-12)


def test_answers_to_another_exam_are_refused(kept):
    task, exams, _, records = kept
    with pytest.raises(predictions.PredictionError, match="evaluations were kept"):
        predictions.mark(task, exams, records[:-1])
    with pytest.raises(predictions.PredictionError, match="was kept for"):
        predictions.mark(task, exams, [{**records[0], "where": {"length": 3}}, *records[1:]])
    rows = "rows" if "rows" in records[0] else "hits"
    with pytest.raises(predictions.PredictionError, match="rows|places|malformed"):
        predictions.mark(task, exams, [{**records[0], rows: records[0][rows][:-1]}, *records[1:]])
    with pytest.raises(predictions.PredictionError, match="malformed"):
        predictions.mark(task, exams, [{k: v for k, v in records[0].items() if k != rows}, *records[1:]])


def test_answers_are_kept_as_hits_and_running_text_as_bits(kept):
    task, _, _, records = kept
    form = {"rows"} if task.name == "language-modelling" else {"hits"}
    assert all(form == {"rows", "hits"} & set(record) for record in records)


def test_running_text_may_not_claim_more_bytes_than_it_has():
    task, exams, _, records = sat("language-modelling")
    for mark in records[0]["rows"][0]:
        if mark[0] == "bytes_per_token":
            mark[1] *= 2
    with pytest.raises(predictions.PredictionError, match="other places"):
        predictions.mark(task, exams, records)


def test_medians_and_quantiles_come_again_from_samples():
    samples: list = []
    settings = Throughput(lengths=(8,), batch_tokens=16, repeats=3, decode=2)
    found = list(measure(Bigram(256), settings, lambda state: 1, dtype="float32", device="cpu", keep=samples.append))
    again = from_samples(json.loads(json.dumps(samples)))
    once = ("state_bytes", "machine_load")
    assert again == [m for m in found if m.metric not in once]
    assert {record["metric"] for record in samples} == {
        "training_tokens_per_second", "peak_memory_bytes", "prefill_tokens_per_second",
        "decoding_milliseconds_per_token",
    }  # fmt: skip
    assert all(len(record["samples"]) == 3 for record in samples)
    with pytest.raises(ValueError, match="holds no samples"):
        from_samples([{**samples[0], "samples": []}])
