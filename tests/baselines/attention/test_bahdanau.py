"""Bahdanau attention: both readings against the loop of their equations, the GRU inside, long texts, and how it begins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.attention import additive
from baselines.attention.bahdanau import Bahdanau


def layer(context: str) -> Bahdanau:
    torch.manual_seed(0)
    model = Bahdanau(6, 2, inner=5, context=context).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def text(time: int) -> Tensor:
    return torch.randn(2, time, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(time)).requires_grad_()


def in_pieces(model: Bahdanau, x: Tensor, cuts: tuple[int, ...]) -> Tensor:
    ys, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = model(piece, state)
        ys.append(y)
    return torch.cat(ys, 1)


@pytest.mark.parametrize("kept", [256, 4], ids=["kept", "computed twice"])
@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 18)], ids=["whole", "pieces"])
@pytest.mark.parametrize("context", ["fed", "late"])
def test_layer_is_its_equations_with_all_gradients(context, cuts, kept, monkeypatch):
    monkeypatch.setattr(additive, "PIECE", 7)
    monkeypatch.setattr(additive, "BLOCK", 5)
    monkeypatch.setattr(additive, "KEPT", kept)
    model, x = layer(context), text(23)
    answers = in_pieces(model, x, cuts), model.reference(model, x, None)[0]
    grads = [torch.autograd.grad(y.square().sum(), [x, *model.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(*grads, strict=True))


@torch.no_grad()
def test_without_a_context_it_is_a_gru_that_resets_before_the_product():
    model, x = layer("fed"), text(9)
    model.feedback.weight.zero_()
    _, (cache,) = model(x)
    s = torch.zeros(2, 5, dtype=torch.float64)
    for t, token in enumerate(x.unbind(1)):
        gates = token @ model.input.weight.T + model.input.bias
        r = torch.sigmoid(gates[:, :5] + s @ model.recurrent.weight[:5].T)
        z = torch.sigmoid(gates[:, 5:10] + s @ model.recurrent.weight[5:].T)
        n = torch.tanh(gates[:, 10:] + (r * s) @ model.candidate.weight.T)
        s = (1 - z) * s + z * n
        assert torch.allclose(cache[1][:, t, 0], s, atol=1e-12)


@torch.no_grad()
def test_the_first_token_sees_nothing_and_the_second_the_first():
    model, x = layer("fed"), text(2)
    given = model.input(x)
    nothing = (given.new_zeros(2, 0, 5),) * 2
    weights = additive.Weights(
        torch.cat([model.recurrent.weight, model.query.weight, model.key.weight]),
        model.query.bias,
        model.feedback.weight,
        model.candidate.weight,
        model.score.weight[0],
    )
    states, contexts, _ = additive.fed(given, *nothing, weights)
    assert not contexts[:, 0].any() and torch.equal(contexts[:, 1], states[:, 0])


def test_weights_begin_as_the_paper_says():
    torch.manual_seed(0)
    model = Bahdanau(128, 4)
    for gate in (*model.recurrent.weight.chunk(2), model.candidate.weight):
        assert torch.allclose(gate @ gate.T, torch.eye(128), atol=1e-5)
    for layer in (model.query, model.key):
        assert layer.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert not model.score.weight.any() and not model.input.bias.any() and not model.query.bias.any()
    assert model.input.weight.std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert model.out.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="Unknown context 'back'; choose fed .*or late"):
        Bahdanau(32, 4, context="back")
