"""MambaMixer against its equations, written out with every layer's sums, and how it begins."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, build
from models.matching import counts

SIZE = Size(32, 32, 3, 2)


def model_of(**settings) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build("mambamixer", SIZE, match=False, **settings).double()
    with torch.no_grad():
        for weights in (*model.tokens, *model.channels):
            weights.add_(0.3 * torch.randn_like(weights))
    return model


def by_the_equations(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Logits; the Mamba blocks are the law's own loops, one token's channels at a time."""
    y_tok, y_ch = [model.embedding(tokens)], [model.embedding(tokens)]
    for layer in range(1, len(model.blocks) + 1):
        alpha, beta = model.tokens[layer - 1][:layer], model.tokens[layer - 1][layer:]
        gamma, theta = model.channels[layer - 1][:layer], model.channels[layer - 1][layer:]
        x = sum(alpha[i] * y_tok[i] + beta[i] * y_ch[i] for i in range(layer))
        block, mixer = model.blocks[layer - 1], model.mixers[layer - 1]
        y_tok.append(x + block.mixer(block.mixer_norm(x))[0])
        x = sum(theta[i] * y_tok[i] for i in range(layer + 1)) + sum(gamma[i] * y_ch[i] for i in range(layer))
        rows = []
        for row in mixer.norm(x).unbind(1):
            pieces = row.unflatten(-1, (mixer.groups, -1))
            y = mixer.scans[0](pieces)[0] + mixer.scans[1](pieces.flip(1))[0].flip(1)
            rows.append(y.flatten(1))
        y_ch.append(x + torch.stack(rows, 1))
    return model.norm(y_ch[-1]) @ model.embedding.weight.T


def test_model_is_its_equations_with_all_gradients():
    model, law = model_of(), model_of(provider="recurrence")
    tokens = torch.randint(32, (2, 19))
    answers = model(tokens)[0], by_the_equations(law, tokens)
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    pairs = ((model, answers[0]), (law, answers[1]))
    grads = [torch.autograd.grad(logits.square().sum(), list(one.parameters())) for one, logits in pairs]
    scale = max(g.abs().max() for g in grads[1])
    assert all((a - b).abs().max() < 1e-11 * scale for a, b in zip(*grads, strict=True))


def test_it_begins_as_a_residual_network():
    model = build("mambamixer", SIZE, match=False)
    for weights in (*model.tokens, *model.channels):
        assert weights[-1] == 1 and not weights[:-1].any()


def test_groups_must_divide_the_width_and_inner_width_is_the_token_mixers():
    with pytest.raises(ValueError, match="groups 5 must divide the width 32"):
        build("mambamixer", SIZE, groups=5)
    assert model_of(inner=24).blocks[0].mixer.out.in_features == 24
    assert len(build("mambamixer", SIZE).blocks) > SIZE.depth


def test_operations_grow_with_the_tokens_alone():
    model = build("mambamixer", SIZE, match=False)
    assert counts.flops(model, 200).forward == pytest.approx(2 * counts.flops(model, 100).forward)


def test_the_compiled_sums_of_a_training_are_those_of_pytorch():
    tokens, found = torch.randint(32, (2, 9), generator=torch.Generator().manual_seed(2)), []
    for provider in ("auto", "chunked"):
        model = model_of(provider=provider)
        logits = model(tokens)[0]
        found.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
