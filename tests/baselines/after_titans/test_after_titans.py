"""The models after Titans: as their laws, at first, with other settings, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from baselines.after_titans.atlas import Atlas
from baselines.after_titans.memora import Memora
from baselines.after_titans.moneta import Moneta
from baselines.after_titans.omeganet import OmegaNet
from baselines.after_titans.yaad import Yaad
from models.titans.memory_layer import FORGET_LOGITS
from models.titans.omega_memory import PolynomialFeatures
from schema.settings import construct

WIDTH, HEADS = 16, 2
CASES = {
    "yaad": (Yaad, {}),
    "yaad fixed per channel": (Yaad, {"threshold": 0.5, "per_channel": True, "activation": "silu"}),
    "yaad linear": (Yaad, {"memory_depth": 1, "residual": False, "threshold": math.inf}),
    "moneta": (Moneta, {}),
    "moneta plain": (Moneta, {"p": 2.5, "q": 3.0, "smooth": False, "norm_floor": 0.1, "convolution": False}),
    "memora": (Memora, {}),
    "memora online": (Memora, {"chunk": 1, "mass": 1.0, "expansion": 1}),
    "omeganet": (OmegaNet, {}),
    "omeganet momentum": (OmegaNet, {"momentum": True, "degree": 1, "window": 1}),
    "atlas": (Atlas, {}),
    "atlas per token": (Atlas, {"orthogonal": "token", "key_width": 3, "degree": 3}),
}


def layer(case: str, **settings) -> torch.nn.Module:
    cls, own = CASES[case]
    torch.manual_seed(0)
    return construct(cls, WIDTH, HEADS, **{"chunk": 4, **own, **settings})


def text(time: int) -> torch.Tensor:
    return torch.randn(2, time, WIDTH, generator=torch.Generator().manual_seed(time), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_layer_in_pieces_is_its_law_with_gradients(case: str):
    answers = []
    for provider, cuts in (("recurrence", [10]), ("chunked", [1, 6, 3])):
        mixer, state, ys = layer(case, provider=provider).double(), None, []
        for piece in text(10).split(cuts, 1):
            y, state = mixer(piece, state)
            ys.append(y)
        y = torch.cat(ys, 1)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).sin().view_as(y)).sum().backward()
        answers.append([y, *(parameter.grad for parameter in mixer.parameters())])
    for got, expected in zip(*answers, strict=True):
        assert expected.abs().max() > 0
        assert (got - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", ["yaad", "moneta", "memora", "omeganet", "atlas"])
@torch.no_grad()
def test_memory_stays_bounded_at_the_largest_rate_under_equal_tokens(case: str):
    """Nothing is forgotten, every token writes as hard as it can."""
    mixer = layer(case, chunk=16)
    mixer.gates.weight.zero_()
    mixer.gates.bias[:-HEADS] = 12.0
    mixer.gates.bias[-HEADS:] = -12.0
    _, (_, memory) = mixer(text(1).float().expand(-1, 600, -1) + 0.1 * text(600).float())
    assert all(part.isfinite().all() and part.abs().max() < 100 for part in memory[0])


def test_gates_and_memories_at_first():
    for case in ("yaad", "moneta", "memora", "omeganet"):
        bias = layer(case).gates.bias
        assert torch.equal(bias[-HEADS:], torch.linspace(*FORGET_LOGITS, HEADS))
        assert not bias[HEADS if case == "yaad" else 0 : -HEADS].any()
    assert F.softplus(layer("yaad").gates.bias[:HEADS]).tolist() == pytest.approx([1.0] * HEADS)
    assert layer("atlas").gates.bias[:-HEADS].view(3, HEADS)[:, 0].tolist() == [2.5, 0.0, -3.0]
    torch.manual_seed(0)
    wide = construct(Yaad, 128, 2)
    hidden, last = wide.initial
    assert hidden.shape == (2, 64, 256) and last.shape == (2, 256, 64)
    assert hidden.std().item() == pytest.approx(2 * 256**-0.5, rel=0.03)
    assert last.std().item() == pytest.approx(0.1 * 256**-0.5, rel=0.03)
    weights = layer("memora").first_weights()
    assert all(weight.min() > 0 for weight in weights)
    assert all(torch.allclose(w.sum(-2), torch.tensor(w.shape[-2] ** 0.5)) for w in weights)


def test_features_are_the_products():
    features, x = PolynomialFeatures(3, 2).double(), torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    products = torch.tensor([[1, 0.5, -1, 2, 0.25 / 2, -0.5 / 2, 1 / 2, 1 / 2, -2 / 2, 4 / 2]], dtype=torch.float64)
    torch.testing.assert_close(features(x), products / products.norm(), rtol=1e-5, atol=0.0)
    assert features.features == 10
    assert PolynomialFeatures(16, 2).features == 153
    assert torch.equal(PolynomialFeatures(3, 1)(x), x)


def test_impossible_settings_say_what_to_do():
    for cls, settings, sentence in (
        (Yaad, {"threshold": 0.0}, "threshold > 0"),
        (Moneta, {"p": 0.5}, "p >= 1"),
        (Memora, {"mass": 0.0}, "greater than 0"),
        (OmegaNet, {"degree": 0}, "degree must be at least 1"),
        (OmegaNet, {"key_width": 0}, "key_width must be at least 1"),
        (Atlas, {"orthogonal": "never"}, "chunk or token"),
        (Yaad, {"expansion": 0}, "at least 1"),
        (Atlas, {"inner": 7}, "multiple of 2"),
    ):
        with pytest.raises(ValueError, match=sentence):
            construct(cls, WIDTH, HEADS, **settings)


@pytest.mark.parametrize(("layers", "apart"), [(1, (0, 1e-13)), (2, (1e-11, 1e-4))])
def test_only_an_atlas_of_several_layers_amplifies_rounding_and_says_so(layers, apart):
    """Two texts that differ by 1e-12 at their first token, a thousand tokens later."""
    torch.manual_seed(0)
    mixer = construct(Atlas, 16, 1, memory_depth=layers).double()
    one = torch.randn(1, 1024, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[0, 0] *= 1 + 1e-12
    with torch.no_grad():
        y, z = mixer(one)[0], mixer(other)[0]
    left = (y - z)[0, -64:].abs().max() / y.abs().max()
    assert apart[0] <= left < apart[1]
    assert bool(mixer.amplifies_rounding) == (layers > 1)
