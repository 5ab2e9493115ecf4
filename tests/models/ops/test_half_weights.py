"""Weights in bfloat16: a float32 model of the same numbers but for rounding, until somebody writes a weight."""

from __future__ import annotations

import copy

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models.language_model import seeded
from models.ops import native_build
from models.ops.dense import native as dense
from models.ops.dense.half_weights import half_of, half_weights
from models.shell.decoding import without_records
from models.shell.model import Size

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="weights are read in bfloat16 by compiled code")
SIZE = Size(64, 36, 2, 2)  # no whole number of registers, so rows have ends
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@torch.no_grad()
def decoded(model, tokens):
    logits, state = model(tokens[:, :5])
    found = [logits]
    for t in range(5, tokens.shape[1]):
        logits, state = model(tokens[:, t : t + 1], state)
        found.append(logits)
    return torch.cat(found, 1)


def text():
    return torch.randint(64, (1, 60), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["gated-deltanet", "titans-mac", "rwkv6", "transformer", "gru"])
def test_a_model_decodes_as_one_of_float32_whose_weights_are_these_numbers(name):
    model = seeded(name, SIZE, 0).eval()
    before = decoded(model, text())
    assert half_weights(model) > 0
    other = copy.deepcopy(model)  # the rounded numbers, without what lies beside them
    assert half_of(model.embedding.weight) is not None and half_of(other.embedding.weight) is None
    found = decoded(model, text())
    assert torch.allclose(found, decoded(other, text()), **CLOSE)
    assert 0 < (found - before).abs().max() < 0.05 * before.abs().max()
    with without_records():
        assert torch.equal(found, decoded(model, text()))


@pytest.mark.parametrize(("rows", "width", "out"), [(1, 32, 8), (3, 37, 41), (1, 64, 130), (2, 5, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_map_reads_its_weights_in_bfloat16_as_the_same_numbers(rows, width, out, bias, monkeypatch):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(width, out, bias), torch.randn(rows, 1, width)
    half_weights(layer)
    with torch.no_grad():
        found = dense.linear(x, layer.weight, layer.bias)
        used = []
        monkeypatch.setattr(dense, "half_of", lambda weight: used.append(weight))
        expected = dense.linear(x, layer.weight, layer.bias)
    assert used and torch.allclose(found, expected, **CLOSE)


def test_a_weight_that_is_written_is_read_in_float32_again():
    model = seeded("mamba", SIZE, 0).eval()
    half_weights(model)
    decoded(model, text())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.01)
    assert half_of(model.embedding.weight) is None
    assert torch.equal(decoded(model, text()), decoded(copy.deepcopy(model), text()))


def test_a_model_that_goes_to_another_dtype_is_read_in_that():
    model = seeded("gated-deltanet", SIZE, 0).eval()
    half_weights(model)
    model.double()
    assert torch.equal(decoded(model, text()), decoded(copy.deepcopy(model), text()))


def test_what_is_no_float32_map_stays_as_it_is():
    model = seeded("gated-deltanet", SIZE, 0).double()
    before = [one.clone() for one in model.parameters()]
    assert half_weights(model) == 0 and all(map(torch.equal, before, model.parameters()))
