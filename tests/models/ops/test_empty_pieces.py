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
from models.ops.providers import operations
from models.shell.carried_state import StateMismatch
from models.shell.model import deep_enough
from tests.support.models import CORE, core_first
from tests.support.operation_inputs import given_to

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
