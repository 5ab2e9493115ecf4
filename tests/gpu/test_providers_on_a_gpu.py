"""Every provider on a CUDA device against the recurrence in float64: the forms, the models around them, and what `auto` takes.

One command on a machine with a GPU proves all that is installed there: `pytest tests/gpu`. In float32 the packages multiply
in TF32, whose rounding (2^-11) the bounds leave room for.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.nn import functional as F

import baselines  # noqa: F401, registers the models
from models import registry
from models.language_model import Size, build
from models.ops import providers
from models.ops.log_linear import log_linear
from models.ops.providers import ProviderAbsent, check_provider, operations, watch
from models.ops.scan import scan
from models.ops.selective_scan import selective_scan
from models.ops.softmax_attention import softmax_attention

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

FORWARD = {torch.float32: 3e-3, torch.bfloat16: 3e-2}  # norm of the difference over the norm of the recurrence's
BACKWARD = {torch.float32: 1e-2, torch.bfloat16: 1e-1}
TIME = 150
ROWS = {  # what stands in the recurrence's row, and who has a form of it
    "linear-attention": ("none", False, False, ("fla",)),
    "retnet": ("fixed", False, False, ("fla",)),
    "mamba2": ("head", True, False, ("fla", "mamba-ssm")),
    "gla": ("key channel", False, False, ("fla",)),
    "deltanet": ("none", True, True, ("fla",)),
    "gated-deltanet": ("head", True, True, ("fla",)),
}
NO_CONVOLUTION = {"retnet", "gla", "rwkv6", "mamba3", "lact"}
MODELS = {  # the providers that a model may be asked for by name
    "retnet": ("fla",),
    "gla": ("fla",),
    "mamba": ("mamba-ssm",),
    "mamba2": ("fla", "mamba-ssm"),
    "deltanet": ("fla",),
    "gated-deltanet": ("fla",),
    "hawk": ("fla",),
    "mingru": ("fla",),
    "rwkv4": ("fla",),
    "linear-attention": ("fla",),
    "performer": ("fla",),
    "mamba3": ("fla", "mamba-ssm"),
    "mambamixer": ("mamba-ssm",),
}


def present(provider: str) -> None:
    try:
        check_provider(provider)
    except ProviderAbsent as error:
        pytest.skip(str(error))


def relative(ours, law) -> float:
    ours, law = (torch.cat([x.detach().double().flatten() for x in side]) for side in (ours, law))
    return ((ours - law).norm() / law.norm()).item()


def row(name: str, time: int, carried: bool) -> tuple[dict[str, torch.Tensor], dict]:
    forget, rate, compare, _ = ROWS[name]
    torch.manual_seed(time)
    heads, keys, values = 2, 64, 48
    shared = 1 if name == "mamba2" else heads
    given = {name: F.normalize(torch.randn(2, time, shared, keys), dim=-1) for name in "qk"}
    given["v"] = torch.randn(2, time, heads, values)
    if forget in ("head", "key channel"):
        shape = (2, time, heads) if forget == "head" else (2, time, heads, keys)
        given["log_forget"] = -0.3 * torch.rand(shape)
    if rate:
        given["rate"] = torch.rand(2, time, heads)
    if carried:
        given["state"] = torch.randn(2, heads, keys, values)
    given, settings = {key: x.to(DEVICE) for key, x in given.items()}, {"compare": compare}
    if forget == "fixed":
        settings["log_forget"] = torch.log1p(-(2.0 ** (-5 - torch.arange(heads, device=DEVICE)))).expand(2, time, -1)
    return given, settings


def differentiated(form, given, settings, kind: torch.dtype, reads: tuple[str, ...] = ("q", "k", "v")):
    """Outputs and gradients; what is read is rounded to `kind` first, also where the recurrence then computes in float64."""
    inputs = {name: x.to(torch.float64 if kind == torch.float64 else torch.float32) for name, x in given.items()}
    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    cast = {name: x.to(kind) if name in reads else x for name, x in inputs.items()}
    outputs = form(**cast, **settings)
    weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)).to(x) for i, x in enumerate(outputs)]
    return outputs, torch.autograd.grad(outputs, list(inputs.values()), weights)


def hold(operation: str, provider: str, given, settings, kind, reads=("q", "k", "v")) -> None:
    given = {name: x.to(kind).float() if name in reads else x for name, x in given.items()}
    with watch() as ran:
        ours = differentiated(operations()[operation].form(provider), given, settings, kind, reads)
    assert ran == {provider}
    law = differentiated(operations()[operation].form("recurrence"), given, settings, torch.float64, reads)
    for one, expected in zip(ours[0], law[0], strict=True):
        assert relative([one], [expected]) < FORWARD[kind]
    for name, one, expected in zip(given, ours[1], law[1], strict=True):
        assert expected.norm() < 1e-9 or relative([one], [expected]) < BACKWARD[kind], name


@pytest.mark.parametrize("kind", FORWARD, ids=str)
@pytest.mark.parametrize("time, carried", [(1, True), (63, False), (64, True), (TIME, True), (TIME, False)])
@pytest.mark.parametrize("name, provider", [(name, provider) for name, row in ROWS.items() for provider in row[3]])
def test_scan_is_the_law(name, provider, time, carried, kind):
    present(provider)
    hold("scan", provider, *row(name, time, carried), kind)


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("name", [name for name in ROWS if "fla" in ROWS[name][3]])
def test_one_token_without_a_gradient_is_the_law(name, carried):
    present("fla")
    given, settings = row(name, 1, carried)
    with torch.no_grad():
        ours = scan(**given, **settings, provider="fla")
        law = scan(**{key: x.double() for key, x in given.items()}, **settings, provider="recurrence")
    assert relative(ours, law) < FORWARD[torch.float32]


@pytest.mark.parametrize("time, carried", [(1, True), (TIME, False), (TIME, True), (2100, True)])
def test_selective_scan_is_the_law(time, carried):
    """Beyond 2048 tokens the kernel works in several chunks."""
    present("mamba-ssm")
    torch.manual_seed(0)
    given = {"x": torch.randn(2, time, 32), "delta": F.softplus(torch.randn(2, time, 32) - 2)}
    given |= {"A": -16 * torch.rand(32, 16) - 0.5, "B": torch.randn(2, time, 16), "C": torch.randn(2, time, 16)}
    given |= {"state": torch.randn(2, 32, 16)} if carried else {}
    given = {name: x.to(DEVICE) for name, x in given.items()}
    hold("selective", "mamba-ssm", given, {}, torch.float32, reads=())
    with torch.no_grad():
        ours, law = (selective_scan(**given, provider=name) for name in ("mamba-ssm", "chunked"))
    assert relative(ours, law) < 1e-4


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("time, carried", [(1, True), (128, False), (TIME, True), (2100, True)])
def test_diagonal_scan_is_the_law(time, carried, shared):
    """Decays of exactly 0 and 1 among them."""
    present("fla")
    torch.manual_seed(0)
    a = torch.rand([40] if shared else [2, time, 40])
    a[..., 0], a[..., 1] = 0, 1
    given = {"a": a, "x": torch.randn(2, time, 40)} | ({"state": torch.randn(2, 40)} if carried else {})
    hold("diagonal", "fla", {name: x.to(DEVICE) for name, x in given.items()}, {}, torch.float32, reads=())


@pytest.mark.parametrize("kind", FORWARD, ids=str)
@pytest.mark.parametrize("time, levels", [(5, 15), (64, 15), (TIME, 4), (600, 15)])
def test_log_linear_attention_is_the_law(time, levels, kind):
    present("fla")
    torch.manual_seed(0)
    given = {name: F.normalize(torch.randn(2, time, 1, 64), dim=-1) for name in "qk"}
    given |= {"v": torch.randn(2, time, 2, 64), "weights": torch.rand(2, time, 2, levels)}
    given |= {"log_forget": -0.3 * torch.rand(2, time, 2), "rate": torch.rand(2, time, 2)}
    given = {name: x.to(kind).float() if name in "qkv" else x for name, x in given.items()}
    given = {name: x.to(DEVICE) for name, x in given.items()}

    def form(provider):
        return lambda **inputs: (log_linear(**inputs, provider=provider)[0],)

    ours = differentiated(form("fla"), given, {}, kind)
    law = differentiated(form("recurrence"), given, {}, torch.float64)
    for bound, one, right in zip((FORWARD, BACKWARD), ours, law, strict=True):
        assert relative(one, right) < bound[kind]


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("time, before", [(1, 70), (TIME, 0), (TIME, 70)])
@pytest.mark.parametrize("provider", ["sdpa", "math", "flash", "flex", "flash-attn"])
def test_softmax_attention_is_the_law(provider, time, before, window):
    present(provider)
    if provider == "flash" and window:
        pytest.skip("torch's FlashAttention has no windows on CUDA")
    torch.manual_seed(time)
    given = {name: torch.randn(2, before * (name != "q") + time, 2, 32, device=DEVICE) for name in "qkv"}

    def form(name):
        return lambda **inputs: (softmax_attention(**inputs, window=window, provider=name),)

    given = {name: x.bfloat16().float() for name, x in given.items()}
    ours = differentiated(form(provider), given, {}, torch.bfloat16)
    law = differentiated(form("recurrence"), given, {}, torch.float64)
    for bound, one, right in zip((FORWARD, BACKWARD), ours, law, strict=True):
        assert relative(one, right) < bound[torch.bfloat16]


@pytest.mark.parametrize("kind", FORWARD, ids=str)
@pytest.mark.parametrize("time, carried", [(1, True), (2, True), (TIME, False), (TIME, True)])
def test_convolution_is_the_law(time, carried, kind):
    present("causal-conv1d")
    torch.manual_seed(0)
    given = {"x": torch.randn(2, time, 32), "weight": torch.randn(32, 1, 4), "bias": torch.randn(32)}
    given |= {"state": torch.randn(2, 3, 32)} if carried else {}
    given = {name: x.to(DEVICE) for name, x in given.items()}
    hold("short convolution", "causal-conv1d", given, {}, kind, reads=tuple(given))


def logits_and_gradients(name: str, provider: str, kind: torch.dtype):
    torch.manual_seed(0)
    model = build(name, Size(64, 128, 3, 2), **({"provider": provider} if provider else {})).to(DEVICE)
    if kind == torch.float64:
        model = model.double()
    tokens = torch.randint(64, (2, TIME + 1), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=kind == torch.bfloat16), watch() as ran:
        logits, _ = model(tokens[:, :-1])
    F.cross_entropy(
        logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)), tokens[:, 1:].flatten()
    ).backward()
    return logits, [p.grad for p in model.parameters() if p.grad is not None], ran, model, tokens


@pytest.mark.parametrize("kind", FORWARD, ids=str)
@pytest.mark.parametrize("name, provider", [(name, given) for name in MODELS for given in (*MODELS[name], "auto")])
def test_model_by_a_provider_is_the_model_by_the_law(name, provider, kind):
    present(provider)
    if name not in registry.names():
        pytest.skip(f"{name} is not registered")
    law, gradients, _, _, _ = logits_and_gradients(name, "recurrence", torch.float64)
    ours, found, ran, model, tokens = logits_and_gradients(name, provider, kind)
    if provider != "auto":
        assert provider in ran
    assert relative([ours], [law]) < FORWARD[kind]
    assert relative(found, gradients) < BACKWARD[kind]
    if kind == torch.float32:
        with torch.no_grad():
            pieces, state = [], None
            for piece in tokens[:, :70].split([60, *10 * [1]], dim=1):
                y, state = model(piece, state)
                pieces.append(y)
        assert relative([torch.cat(pieces, 1)], [law[:, :70]]) < FORWARD[kind]


@pytest.mark.parametrize("name", [name for name in registry.names()])
def test_auto_takes_the_best_that_is_installed(name):
    takes = "provider" in inspect.signature(registry.entry(name).cls).parameters
    *_, ran, _, _ = logits_and_gradients(name, "auto" if takes else "", torch.float32)
    for provider in MODELS.get(name, ())[:1]:
        assert (provider in ran) == (not providers._missing(provider))
    if takes and not providers._missing("causal-conv1d") and name not in NO_CONVOLUTION:
        assert "causal-conv1d" in ran
