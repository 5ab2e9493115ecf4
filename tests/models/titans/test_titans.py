"""Titans' wiring in every variant: streaming, causality, gradients to everything learned, and what its settings allow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.neural_memory import chunked_deep as deep
from models.ops.providers import watch
from models.titans.mac import TitansMAC
from models.titans.mag import TitansMAG
from schema.settings import construct
from tests.support.titans_layers import CASES, HEADS, mixer, relative, text


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_any_split_gives_the_whole(case: str):
    layer = mixer(case)
    period = layer.period
    x = text(2 * period + 37)
    whole, last = layer(x)
    for size in sorted({1, 3, 37, max(1, period - 1), period, period + 1}):
        state, ys = None, []
        for piece in x.split(size, 1):
            y, after = layer(piece, state)
            assert torch.equal(y, layer(piece, state)[0])  # the state given was left as it was
            ys, state = [*ys, y], after
        assert relative(torch.cat(ys, 1), whole) < 1e-5, size


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_no_output_sees_a_later_token_or_another_row(case: str):
    layer = mixer(case)
    x = text(2 * layer.period + 7)
    y, _ = layer(x)
    for place in (1, layer.period - 1, layer.period, layer.period + 1, x.shape[1] - 2):
        changed = x.clone()
        changed[0, place:] += 1
        z, _ = layer(changed)
        assert relative(z[0, :place], y[0, :place]) < 1e-6 if place else True
        assert relative(z[0, place:], y[0, place:]) > 1e-2
        assert relative(z[1], y[1]) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_everything_learned_has_a_gradient(case: str):
    layer = mixer(case)
    y, _ = layer(text(2 * layer.period + 5))
    (y * text(y.shape[1] + 1)[:, 1:]).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-7, name


@torch.no_grad()
def test_what_an_ablation_leaves_out_is_not_there(monkeypatch):
    seen = {}
    layer, whole = mixer("lmm bare"), mixer("lmm")

    def watching(*args, **gates):
        seen.update(gates)
        return deep.chunked(*args, **gates)

    monkeypatch.setattr(type(layer.memory.operation), "form", lambda *_: watching)
    layer(text(20))
    assert not seen["momentum"].any() and (seen["keep"] == 1).all()
    assert 0 < seen["rate"].min() and seen["rate"].max() < layer.memory.bound
    gone = {name for name, _ in whole.named_parameters()} - {name for name, _ in layer.named_parameters()}
    assert gone == {"memory.query_conv.weight", "memory.key_value_conv.weight"}
    assert layer.memory.gates.out_features == HEADS


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_fast_form_and_law_are_one_layer(case: str):
    ran = []
    for provider in ("chunked", "recurrence"):
        layer = mixer(case, provider=provider).double()
        with watch() as names:
            ran.append(layer(text(layer.period + 5).double())[0])
        assert provider in names
    assert relative(*ran) < 1e-10


@pytest.mark.parametrize("case", ["lmm", "mag", "mal", "mac"])
@torch.no_grad()
def test_state_stops_growing(case: str):
    layer, sizes, state = mixer(case), [], None
    for piece in text(6 * layer.period).split(1, 1):
        _, state = layer(piece, state)
        sizes.append(sum(part.numel() for part in torch.utils._pytree.tree_leaves(state) if isinstance(part, Tensor)))
    assert max(sizes[2 * layer.period :]) <= max(sizes[: 2 * layer.period])


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    layer = mixer("lmm")
    optimiser = torch.optim.Adam(layer.parameters(), 1e-2)
    x = text(40)
    losses = []
    for _ in range(30):
        loss = (
            (layer(x)[0][:, 1:] - x[:, :-1]).square().mean()
        )  # each token from the one after it, across the convolution
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "cls, segment", [(TitansMAC, {"segment": 512, "memory_tokens": 256}), (TitansMAG, {"window": 2048})]
)
def test_camera_ready_settings_build(cls: type, segment: dict):
    shared = {
        "chunk": 16,
        "expansion": 4,
        "residual": True,
        "layer_gates": True,
        "forget": "channel",
        "persistent": 128,
    }
    with torch.device("meta"):
        layer = construct(cls, 256, 4, store_every=256, **shared, **segment)
    assert layer.persistent.shape == (128, 256)
    assert [tuple(weight.shape) for weight in layer.memory.initial] == [(4, 64, 256), (4, 256, 64)]
    assert layer.memory.gates.out_features == 4 * (2 + 2 + 256 + 64)


@pytest.mark.parametrize(
    "case, settings, says",
    [
        ("mac", {"segment": 20}, "multiple of 8"),
        ("mac", {"memory_tokens": 5}, "divide the segment of 16"),
        ("mac", {"memory_tokens": 0}, "divide the segment of 16"),
        ("lmm", {"store_every": 12}, "multiple of the chunk of 8"),
        ("lmm", {"forget": "row"}, "head or channel"),
        ("mag", {"persistent": -1}, "from 0 up"),
        ("mag", {"window": 0}, "at least 1"),
        ("mag", {"inner": 6}, "multiple of 4"),
        ("lmm", {"memory_depth": 0}, "at least 1"),
        ("lmm", {"inner": 15}, "multiple of 2"),
        ("lmm", {"chunk": 0}, "at least 1"),
    ],
)
def test_impossible_settings_say_what_to_do(case: str, settings: dict, says: str):
    with pytest.raises(ValueError, match=says):
        mixer(case, **settings)
