"""Logits that are no numbers give no number in any task; what they were asked is kept as lost."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import tasks
from tasks.harness import peak_memory, predictions
from tasks.harness.evaluate import NoNumbers, answer, choose, evaluate, generate, lost, validation_loss

SETTINGS = {
    "needle": {"template": "compact", "variants": ["s-niah-1"], "length": 64, "test_lengths": [64, 256], "samples": 1},
    "babilong": {"questions": ["qa1"], "length": 128, "test_lengths": [128, 256], "samples": 2},
    "mqar": {"pairs": [4], "length": 64, "test_lengths": [64, 256], "samples": 2, "vocab": 32},
    "language-modelling": {"length": 64, "test_lengths": [64, 256], "test_bytes": 1024},
    "state-tracking": {},
}


class Late(nn.Module):
    """Logits that are spoilt from a token on."""

    period = 1

    def __init__(self, vocab: int, spoilt: int, value: float = math.nan) -> None:
        super().__init__()
        self.vocab, self.spoilt, self.value = vocab, spoilt, value

    def forward(self, tokens, state=None):
        place = (0 if state is None else state[0]) + torch.arange(tokens.shape[1])
        logits = torch.zeros(*tokens.shape, self.vocab)
        logits[:, place >= self.spoilt] = self.value
        return logits, (int(place[-1]) + 1,)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_mark_of_a_spoilt_text_is_lost_and_short_texts_keep_theirs(name):
    task = tasks.create(name, **SETTINGS[name])
    kept: list = []
    found = evaluate(Late(task.vocab, 150), task, keep=lambda *one: kept.append(predictions.keep(task, *one)))
    long = [m for m in found if m.where.get("length", 0) >= 256]
    assert long and all(math.isnan(m.value) for m in long)
    short = [m for m in found if m.where.get("length", 999) < 128]
    assert all(math.isfinite(m.value) for m in short)
    again = predictions.mark(task, list(task.exams("test")), json.loads(json.dumps(kept)))
    assert [(m.metric, m.where, m.count) for m in again] == [(m.metric, m.where, m.count) for m in found]
    assert [math.isnan(m.value) for m in again] == [math.isnan(m.value) for m in found]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_teacher_forcing_choices_and_generation_refuse_what_is_no_number(value):
    task = tasks.create("babilong", **SETTINGS["babilong"])
    exam = next(iter(task.exams("test")))
    with pytest.raises(NoNumbers, match="of a text of length"):
        answer(Late(task.vocab, 0, value), exam)
    last = torch.zeros(2, 8)
    with pytest.raises(NoNumbers):
        choose(Late(8, 0, value), (0,), last, ((1, 2), (3,)))
    with pytest.raises(NoNumbers):
        generate(Late(8, 0, value), (0,), last, 3, None)
    with pytest.raises(FloatingPointError):
        validation_loss(Late(task.vocab, 0, value), task)


def test_a_token_that_is_ruled_out_is_no_fault():
    logits = torch.zeros(2, 1, 4)
    logits[..., 3] = -math.inf
    assert choose(lambda tokens, state: (logits, ()), (), logits[:1, -1], ((1, 2), (0,))).tolist() == [1]


def test_what_no_answer_changes_is_not_lost():
    task = tasks.create("language-modelling", **SETTINGS["language-modelling"])
    marks = {m.metric: m.value for m in lost(task, next(iter(task.exams("test"))))}
    assert math.isfinite(marks["bytes_per_token"]) and any(math.isnan(value) for value in marks.values())


@pytest.mark.parametrize(("system", "told"), [("darwin", 300 * 2**20), ("linux", 300 * 2**10)])
def test_the_largest_size_is_told_in_bytes_where_there_is_no_proc(monkeypatch, system, told):
    class Usage:
        ru_maxrss = told

    monkeypatch.setattr(peak_memory.Path, "exists", lambda self: False)
    monkeypatch.setattr(peak_memory.resource, "getrusage", lambda who: Usage)
    monkeypatch.setattr(peak_memory.sys, "platform", system)
    assert peak_memory.peak("cpu") == 300 * 2**20
