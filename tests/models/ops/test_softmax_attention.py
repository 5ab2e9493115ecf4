"""Softmax attention: every provider that is here against the rows written out, and the sentences of those that are not."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor

from baselines.attention.transformer import Transformer, WindowTransformer
from models.ops import providers
from models.ops.providers import NotCovered, ProviderAbsent, watch
from models.ops.softmax_attention import softmax_attention
from models.ops.softmax_attention.flash_attn import flash_attn

TRAINED = ("sdpa", "math", "flash")
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def given(time: int, before: int, prefix: int, kind: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """q of the last `time` tokens of a text, its keys and values, and those of a prefix."""
    draw = torch.Generator().manual_seed(time + before)
    sizes = {"q": time, "k": before + time, "v": before + time} | ({"a": prefix, "b": prefix} if prefix else {})
    return {
        name: torch.randn(2 if name in "qkv" else 1, rows, 3, 4, dtype=torch.float64, generator=draw).to(kind)
        for name, rows in sizes.items()
    }


def ask(provider: str, inputs: dict[str, Tensor], window: int | None) -> Tensor:
    prefix = (inputs["a"], inputs["b"]) if "a" in inputs else None
    with watch() as ran:
        y = softmax_attention(*(inputs[name] for name in "qkv"), window=window, prefix=prefix, provider=provider)
    assert ran == {"sdpa" if provider == "auto" else provider}
    return y


@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("window", [None, 1, 8])
@pytest.mark.parametrize(("time", "before"), [(1, 0), (1, 7), (5, 7), (29, 0), (29, 20)])
def test_every_provider_is_the_rows_written_out_with_all_gradients(time, before, window, prefix):
    inputs, answers = given(time, before, prefix), {}
    for provider in ("recurrence", *TRAINED):
        fresh = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        y = ask(provider, fresh, window)
        answers[provider] = [y, *torch.autograd.grad((y * y.detach().cos()).sum(), list(fresh.values()))]
    for provider in TRAINED:
        torch.testing.assert_close(answers[provider], answers["recurrence"], **EXACT)


@pytest.mark.parametrize(
    ("time", "before", "prefix", "window"), [(1, 7, 0, None), (37, 20, 3, 8), (37, 0, 3, None), (150, 3, 0, None)]
)
@torch.no_grad()
def test_flex_is_the_rows_written_out_in_evaluation(time, before, prefix, window):
    inputs = given(time, before, prefix, torch.float32)
    torch.testing.assert_close(ask("flex", inputs, window), ask("recurrence", inputs, window), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("provider", ["recurrence", *TRAINED])
def test_gradients_in_float32_are_those_of_the_law(provider):
    found = []
    for name, kind in (("recurrence", torch.float64), (provider, torch.float32)):
        inputs = {key: x.to(kind).requires_grad_() for key, x in given(37, 7, 0, torch.float32).items()}
        found.append(torch.autograd.grad(ask(name, inputs, 8).square().sum(), list(inputs.values())))
    for law, ours in zip(*found, strict=True):
        assert (law - ours).norm() < 1e-5 * law.norm()


@pytest.mark.parametrize("provider", ["recurrence", *TRAINED, "flex"])
@torch.no_grad()
def test_no_tokens_give_no_rows(provider):
    assert ask(provider, given(0, 7, 0, torch.float32), None).shape == (2, 0, 3, 4)


@torch.no_grad()
def test_rows_by_hand():
    """Scores 0 and ln 3 give weights 1/4 and 3/4."""
    q, k, v = (torch.tensor(x).view(1, -1, 1, 1) for x in ([1.0, 1.0], [0.0, torch.tensor(3.0).log()], [4.0, 8.0]))
    assert softmax_attention(q, k, v, provider="recurrence").flatten().tolist() == pytest.approx([4, 7])
    assert softmax_attention(q, k, v, window=1, provider="recurrence").flatten().tolist() == pytest.approx([4, 8])


def test_auto_takes_what_torch_picks():
    ask("auto", given(5, 0, 0), None)


def test_flex_refuses_a_gradient_on_a_cpu_in_one_sentence():
    inputs = {name: x.requires_grad_() for name, x in given(5, 0, 0, torch.float32).items()}
    with pytest.raises(NotCovered, match="'flex' has no gradient on a CPU; use it in evaluation, or train with"):
        ask("flex", inputs, None)


@pytest.mark.parametrize("provider", ["chunked", "native"])
def test_provider_of_a_recurrence_has_no_form_of_it(provider):
    with pytest.raises(
        ProviderAbsent, match=f"'{provider}' has no form of 'softmax attention'.*use one of: recurrence, sdpa"
    ):
        ask(provider, given(5, 0, 0), None)


def test_the_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(providers, "_missing", lambda name: "flash_attn")
    with pytest.raises(ProviderAbsent, match="needs the module flash_attn, which is not installed: pip install"):
        ask("flash-attn", given(5, 0, 0), None)


@pytest.mark.parametrize("window", [None, 4])
def test_the_package_is_called_as_it_takes_windows(window, monkeypatch):
    """On a stand-in with its signature: sides of the window in tokens beside one's own, -1 for no end."""

    def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)):
        rows = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
        distance, (left, right) = rows - torch.arange(k.shape[1]), window_size
        seen = (
            ((distance >= 0) | (not causal)) & ((distance <= left) | (left < 0)) & ((-distance <= right) | (right < 0))
        )
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
        return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)

    module = types.ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setattr("models.ops.softmax_attention.flash_attn.require", lambda provider, like: None)
    half = {name: x.bfloat16() for name, x in given(9, 5, 0).items()}
    found = flash_attn(half["q"], half["k"], half["v"], window=window)
    torch.testing.assert_close(found, ask("recurrence", half, window), rtol=2e-2, atol=2e-2)
    with pytest.raises(NotCovered, match="no form for a prefix; use autocast to bfloat16"):
        flash_attn(half["q"], half["k"], half["v"], prefix=(half["k"], half["v"]))
    with pytest.raises(NotCovered, match="no form for torch.float32"):
        flash_attn(*(half[name].float() for name in "qkv"))


@pytest.mark.parametrize("cls, settings", [(Transformer, {}), (WindowTransformer, {"window": 6})])
@pytest.mark.parametrize("provider", ["recurrence", "math", "flash", "flex"])
@torch.no_grad()
def test_a_layer_computes_the_same_by_every_provider(cls, settings, provider):
    layers = []
    for name in ("auto", provider):
        torch.manual_seed(0)
        layers.append(cls(16, 2, **settings, provider=name))
    x = torch.randn(2, 31, 16)
    state = None
    for piece in x.split([13, 1, 17], 1):
        with watch() as ran:
            y, state = layers[1](piece, state)
        assert ran == {provider}
        last = y
    assert torch.allclose(last, layers[0](x)[0][:, 14:], atol=1e-5)
