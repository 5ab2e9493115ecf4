"""A layer's recurrence by itself: it computes what it computes inside its layer, and its error is against the law in float64."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from baselines.oracles.adapters import operation_alone
from models import registry
from models.ops.native_build import compiler
from models.ops.providers import watch
from models.shell.decoding.record import NotRecorded
from tasks.speed import contest

WIDTH, HEADS = 32, 4


def layer(name: str, **settings):
    torch.manual_seed(0)
    return registry.entry(name).cls(WIDTH, HEADS, **settings)


@pytest.mark.parametrize("name", ["gated-deltanet", "mamba2", "mamba", "titans-lmm", "ttt-linear", "lru", "mlstm"])
def test_it_gives_what_it_gives_inside_the_layer(name):
    mixer, x = layer(name, provider="chunked"), torch.randn(2, 20, WIDTH)
    alone = operation_alone.given(mixer, x)
    inside = []

    def kept(*inputs, **named):
        inside.append(alone.function(*inputs, **named)[0])
        return alone.function(*inputs, **named)

    with torch.no_grad(), patch.object(*operation_alone.place(mixer), operation_alone.OtherForm(kept)):
        mixer(x)
    assert torch.equal(alone(), inside[0])


def test_its_error_is_that_of_the_form_and_not_nothing():
    x = torch.randn(1, 100, WIDTH)
    assert 0 < operation_alone.given(layer("gated-deltanet"), x).error() < 1e-5
    wrong = operation_alone.given(layer("gated-deltanet"), x, lambda q, k, v, **unused: (2 * v, None))
    assert wrong.error() > 0.5


def test_complex_inputs_are_differentiated_and_held_to_the_law_too():
    """The LRU's recurrence is of complex numbers."""
    alone = operation_alone.given(layer("lru", provider="chunked"), torch.randn(1, 20, WIDTH))
    assert any(one.is_complex() for one in alone.tensors()) and 0 < alone.error() < 1e-5
    y = contest.backward_step(alone, alone.tensors())()
    assert torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()
    assert all(one.grad is not None for one in alone.tensors())


def test_its_inputs_are_its_own():
    mixer, x = layer("deltanet"), torch.randn(1, 8, WIDTH)
    alone = operation_alone.given(mixer, x)
    assert alone.tensors() and not any(one.requires_grad for one in alone.tensors())


def test_a_layer_without_one_recurrence_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="has not one recurrence .*level = 'layer'"):
        operation_alone.place(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["gated-deltanet", "mamba2", "mamba", "titans-lmm", "lru", "mlstm"])
def test_a_last_token_comes_behind_the_others_and_goes_on_from_its_state(name):
    mixer, x = layer(name, provider="chunked"), torch.randn(2, 20, WIDTH)
    alone = operation_alone.given(mixer, x, last=True)
    whole = operation_alone.given(mixer, x)()
    torch.testing.assert_close(alone(), whole[:, -1:], rtol=1e-4, atol=1e-5)
    assert 0 < alone.error() < 1e-5
    token = alone.carried()
    first, second = token(), token()
    assert torch.equal(first, alone()) and not torch.equal(first, second)


@pytest.mark.skipif(not compiler(), reason="no compiler")
@pytest.mark.parametrize("name", ["gated-deltanet", "mamba2", "mamba", "mlstm"])
def test_a_recorded_token_has_the_digits_of_the_layers_call(name):
    alone = operation_alone.given(layer(name, provider="native"), torch.randn(1, 20, WIDTH), last=True)
    before = [one.clone() for one in alone.tensors()]
    with torch.no_grad(), watch() as ran:
        called, recorded = alone.carried(), alone.recorded()
        for _ in range(5):
            assert torch.equal(called(), recorded())
    assert ran == {"native"} and all(map(torch.equal, before, alone.tensors()))


def test_what_is_not_compiled_or_counts_tokens_has_no_record():
    with pytest.raises(NotRecorded, match="Nothing compiled"):
        operation_alone.given(layer("mamba2", provider="chunked"), torch.randn(1, 9, WIDTH), last=True).recorded()
    with pytest.raises(ValueError, match="keeps its shapes and counts nothing"):
        operation_alone.given(layer("titans-lmm"), torch.randn(1, 9, WIDTH), last=True).recorded()
