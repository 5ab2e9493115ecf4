"""A piece without tokens, a batch without rows, and a state that a model was not given by itself: for every model."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance.subject import difference
from models.language_model import Size, seeded
from models.ops.associative_memory.retention_rule import RetentionRule
from models.ops.associative_memory.window_recurrence import WindowRule
from models.ops.neural_memory.recurrence import Rule
from models.ops.providers import operations
from models.shell.carried_state import StateMismatch
from models.shell.model import deep_enough
from tests.support.models import CORE, core_first

SIZE = Size(vocab=64, width=32, depth=1, heads=2)
PROVIDED = [name for name in registry.names() if "provider" in inspect.signature(registry.entry(name).cls).parameters]
BUILDS = [
    pytest.param(name, settings, marks=[] if name in CORE else [pytest.mark.slow])
    for names, settings in ((registry.names(), {}), (PROVIDED, {"provider": "recurrence"}))
    for name in names
]

WITHOUT_STATE = {
    "softmax attention",
    "windowed attention",
    "learned sketch",
    "data-dependent rotary",
    "channel scan",
    "polynomial features",
}  # their own tests give them nothing to read


def model_of(name: str, settings: dict | None = None) -> torch.nn.Module:
    return seeded(name, deep_enough(registry.entry(name), SIZE), 0, **settings or {}).eval()


def text(rows: int = 2, time: int = 40) -> torch.Tensor:
    return torch.randint(64, (rows, time), generator=torch.Generator().manual_seed(0))


def cast(state, kind):
    return tree_map(lambda x: x.to(kind) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, state)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("name", "settings"), BUILDS, ids=str)
@torch.no_grad()
def test_empty_piece_gives_no_logits_and_the_state_as_it_was(name, settings):
    model, tokens = model_of(name, settings), text()
    whole, _ = model(tokens)
    first, state = model(tokens[:, :0])
    begin, state = model(tokens[:, :20], state)
    none, same = model(tokens[:, :0], state)
    end, _ = model(tokens[:, 20:], same)
    assert first.shape == none.shape == (2, 0, 64)
    assert first.dtype == none.dtype == whole.dtype
    assert all(a is b for a, b in zip(tree_leaves(state), tree_leaves(same), strict=True))
    assert difference(torch.cat([begin, end], 1), whole) < 1e-4


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("name", "settings"), BUILDS, ids=str)
@torch.no_grad()
def test_batch_without_rows_keeps_shapes(name, settings):
    model, tokens = model_of(name, settings), text()[:0]
    logits, state = model(tokens[:, :21])
    more, state = model(tokens[:, 21:], state)
    nothing, _ = model(tokens[:, :0], state)
    assert (logits.shape, more.shape, nothing.shape) == ((0, 21, 64), (0, 19, 64), (0, 0, 64))
    assert all(len(leaf) == 0 for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", core_first())
@torch.no_grad()
def test_state_of_another_dtype_goes_on_in_the_models_own(name, kind):
    model, tokens = model_of(name), text(time=100)
    _, state = model(tokens[:, :70])
    expected, own = model(tokens[:, 70:], cast(cast(state, kind), torch.float32))
    logits, after = model(tokens[:, 70:], cast(state, kind))
    assert torch.equal(logits, expected)
    assert [getattr(x, "dtype", None) for x in tree_leaves(after)] == [
        getattr(x, "dtype", None) for x in tree_leaves(own)
    ]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", core_first())
@torch.no_grad()
def test_state_goes_on_across_every_precision(name):
    """From float32 to float64, to bfloat16, and into and out of autocast."""
    tokens = text(time=100)
    models = {kind: model_of(name).to(kind) for kind in (torch.float32, torch.float64, torch.bfloat16)}
    right, _ = models[torch.float64](tokens)
    _, state = models[torch.float32](tokens[:, :70])
    for kind, bound in ((torch.float64, 1e-4), (torch.bfloat16, 0.2)):
        logits, _ = models[kind](tokens[:, 70:], state)
        # what a memory of past tokens mixes are logarithms of chances, in float32 at least
        assert logits.dtype == (torch.promote_types(kind, torch.float32) if name == "knn-lm" else kind)
        assert (logits.double() - right[:, 70:]).norm() <= bound * right[:, 70:].norm()
    with torch.autocast("cpu", torch.bfloat16):
        _, inside = models[torch.float32](tokens[:, :70])
        after, _ = models[torch.float32](tokens[:, 70:], state)
    outside, _ = models[torch.float32](tokens[:, 70:], inside)
    for logits in (after, outside):
        assert (logits.double() - right[:, 70:]).norm() <= 0.2 * right[:, 70:].norm()


@pytest.mark.parametrize("name", core_first())
@torch.no_grad()
def test_state_of_other_rows_is_refused_in_one_sentence(name):
    model = model_of(name)
    _, state = model(text(3, 20))
    with pytest.raises(StateMismatch, match=r"A state of 3 row\(s\) cannot go on with a text of 2"):
        model(text(2, 20), state)


@pytest.mark.parametrize("name", core_first())
@torch.no_grad()
def test_state_on_another_device_is_refused_in_one_sentence(name):
    model = model_of(name)
    _, state = model(text(2, 20))
    elsewhere = tree_map(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, state)
    with pytest.raises(StateMismatch, match="The state lies on meta, the text on cpu"):
        model(text(2, 20), elsewhere)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", core_first())
@torch.no_grad()
def test_state_of_another_model_is_refused_in_one_sentence(name):
    other = "mamba" if name != "mamba" else "titans-mac"
    _, state = model_of(other)(text(2, 20))
    with pytest.raises(
        StateMismatch, match=r"a state goes on only in a model of the same class|another model's"
    ) as told:
        model_of(name)(text(2, 20), state)
    assert "\n" not in str(told.value)


@torch.no_grad()
def test_state_of_a_deeper_model_is_refused():
    _, state = seeded("retnet", Size(64, 32, 3, 2), 0)(text())
    with pytest.raises(StateMismatch, match="no tuple of 1 mixers' states"):
        model_of("retnet")(text(), state)


def test_error_that_is_not_the_states_stays_itself():
    model = model_of("retnet")
    _, state = model(text())
    with pytest.raises(IndexError):
        model(text() + 64, state)


def given_to(operation: str, time: int) -> tuple[tuple, dict]:
    """Inputs of an operation over `time` tokens: two rows, three heads."""
    x = torch.randn(2, time, 3, 4)
    if operation == "scan":
        return (x, x, x), {"state": torch.randn(2, 3, 4, 4), "log_forget": -x[..., 0].abs()}
    if operation == "erase and write":
        return (x, x, x, x), {"state": torch.randn(2, 3, 4, 4), "log_forget": -x.abs()}
    if operation == "selective":
        flat = x.flatten(2)
        return (flat, flat.abs(), -torch.ones(12, 4), x[:, :, 0], x[:, :, 1]), {"state": torch.randn(2, 12, 4)}
    if operation == "diagonal":
        flat = x.flatten(2)
        return (flat.sigmoid(), flat), {"state": torch.randn(2, 12)}
    if operation == "diagonal outer":
        flat, gate = x.flatten(2), x[:, :, 0].sigmoid()
        return (flat, flat.sigmoid(), x[:, :, 1], gate, x[:, :, 2]), {"state": torch.randn(2, 4, 12)}
    if operation == "recurrent cell":
        weights = torch.randn(48, 12), torch.randn(1, 48, 12)
        return (x.flatten(2), *weights), {"cell": "lstm", "state": torch.randn(2, 2, 12)}
    if operation == "trapezoidal":
        state = torch.randn(2, 3, 2), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
        gates = {
            "log_forget": -x[..., 0].abs(),
            "delta": x[..., 1].abs(),
            "trapezoid": x[..., 2],
            "speed": x[:, :, 0, :2],
        }
        biases = {"bias_q": torch.randn(3, 4), "bias_k": torch.randn(3, 4), "skip": torch.randn(3)}
        return (x, x, x), {**gates, **biases, "state": state}
    if operation == "short convolution":
        return (x.flatten(2), torch.randn(12, 1, 4)), {"state": torch.randn(2, 3, 12)}
    if operation == "log-linear":
        return (x, x, x, x.abs()), {"log_forget": -x[..., 0].abs()}
    if operation in ("convolution", "liquid convolution"):
        numbers = [torch.full((12, 5), 0.3 + 0.4j)] * 3
        degree, state = ({}, (12, 5, 2)) if operation == "convolution" else ({"degree": 2}, (2, 12, 5, 2))
        return (x.flatten(2), *numbers), {"state": torch.randn(2, *state), **degree}
    if operation == "test-time training":
        weights, norm = (torch.randn(3, 5, 4),), (torch.ones(3, 4), torch.zeros(3, 4))
        return (x, x, x), {"rate": x[..., 0].abs(), "factor": torch.ones(4), "weights": weights, "norm": norm}
    if operation == "ridge read":
        state = torch.randn(2, 3, 4, 4)
        return (x, x, x), {
            "log_forget": -x[..., 0].abs(),
            "rate": x[..., 0].abs(),
            "ridge": torch.ones(3, 4),
            "state": (state, state),
        }
    if operation == "fast weights":
        rates = {"rates": x[..., :3].abs(), "momentum": x[..., 0].sigmoid()}
        return (x, x, x), {**rates, "weights": (torch.randn(3, 4, 4),) * 3, "chunk": 4}
    if operation == "routed attention":
        state = torch.randn(2, 3, 5, 2, 4), torch.randn(2, 3, 5, 2, 4), torch.full((2, 3, 5), 2)
        return (x, x, x, x.argmax(-1)), {"clusters": 5, "window": 3, "scale": 0.5, "state": state}
    if operation == "balanced attention":
        state = torch.randn(2, 3, 4, 3, 4), torch.randn(2, 3, 4, 3, 4), torch.randn(2, 3, 4, 3)
        return (x, x, x, x), {"window": 3, "scale": 0.5, "state": state}
    if operation == "kernel attention":
        return (x, x, x), {"kernel": "square"}
    if operation == "block and kernel attention":
        return (x, x, x, x, x), {"block": 3}
    if operation == "window and kernel attention":
        return (x, x, x), {"projection": torch.randn(6, 4), "window": 3}
    gates = {gate: x[..., 0].sigmoid() for gate in ("momentum", "rate", "keep")}
    if operation in ("retention memory", "window memory"):
        retention = operation == "retention memory"
        gates["threshold" if retention else "weight"] = gates.pop("momentum")
        return (x, x, x), {
            **gates,
            "initial": (torch.randn(3, 4, 4),),
            "rule": (RetentionRule if retention else WindowRule)(4),
        }
    initial = (torch.randn(3, 4, 4),) * (1 if operation == "linear memory" else 2)
    return (x, x, x), {**gates, "initial": initial, "rule": Rule(4)}


@pytest.mark.parametrize("provider", ["recurrence", "chunked"])
@pytest.mark.parametrize("operation", sorted(operations().keys() - WITHOUT_STATE))
def test_every_form_takes_no_tokens(operation, provider):
    inputs, named = given_to(operation, 0)
    form = operations()[operation].form(provider)
    y, state = form(*inputs, **named)
    assert y.shape == inputs[0].shape
    if "state" in named:
        assert all(map(torch.equal, tree_leaves(state), tree_leaves(named["state"])))
    more, whole = given_to(operation, 6)
    _, before = form(*more, **whole)
    none, after = form(*inputs, **{**named, "state": before})
    assert none.shape == inputs[0].shape
    for a, b in zip(tree_leaves(before), tree_leaves(after), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
