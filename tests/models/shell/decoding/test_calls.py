"""The calls that a record is made of: neighbours in one, weights laid out once, and what cannot be prepared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import baselines  # noqa: F401  fills the registry
from models.ops import native_build
from models.shell.decoding import calls
from tests.support.recorded_steps import SIZE, decoded, is_equal, made, of_layers, records, text

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="records are made of compiled calls")


def test_neighbouring_calls_are_made_in_one_and_python_makes_those_that_cannot_be_prepared(monkeypatch):
    expected = of_layers(made(), text())

    def count():
        model = made()
        assert is_equal(decoded(model, text()), expected)
        [record] = records(model)
        return len(record.calls)

    walked = count()
    monkeypatch.setattr("models.ops.prepared_calls.walk._walker", lambda: None)
    apart = count()
    assert walked < apart / 2


def test_weights_that_compiled_code_reads_are_laid_out_once(monkeypatch):
    counts, joined = [], calls.joined
    monkeypatch.setattr("models.shell.decoding.record.joined", lambda made: counts.append(len(made)) or joined(made))
    decoded(made("gru"), text())
    monkeypatch.setattr("models.ops.recurrent_cell.native.only_read", lambda tensor: tensor)
    model = made("gru")
    assert is_equal(decoded(model, text()), of_layers(model, text()))
    assert counts == [counts[1] - SIZE.depth, counts[1]]


def test_what_has_no_form_that_writes_into_memory_is_computed_and_copied():
    x, weight = torch.randn(2, 8), torch.randn(8)
    heard = calls.Listener([x, weight])
    with torch.no_grad(), heard:
        normed = nn.functional.layer_norm(x, (8,), weight)
        wide = x.double()
    x.mul_(3)
    for again, given in calls.joined(heard.calls):
        again(*given)
    assert torch.equal(normed, nn.functional.layer_norm(x, (8,), weight)) and torch.equal(wide, x.double())


def test_one_call_that_cannot_be_prepared_is_made_between_the_others(monkeypatch):
    prepared, refused = calls.prepared, []

    def but_norms(run, given):
        if run.__name__ != "rms_norm":
            return prepared(run, given)
        refused.append(run)
        return None

    monkeypatch.setattr(calls, "prepared", but_norms)
    model = made()
    assert is_equal(decoded(model, text()), of_layers(model, text())) and refused
    [record] = records(model)
    assert refused == [run for run, _ in record.calls if run in refused]
