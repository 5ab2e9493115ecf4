"""The formulas of every model against torch's counter on the chunked form, and what they say of growth."""

from __future__ import annotations

from functools import cache
from math import prod

import pytest
import torch
from torch import nn
from torch.utils import flop_counter

import baselines  # noqa: F401  fills the registry
from baselines.attention import additive
from models import registry
from models.conformance import costs
from models.language_model import Size, build
from models.matching import counts
from models.ops.providers import probing
from models.shell.model import deep_enough
from schema.settings import parameters
from tests.support.models import core_first

TOLERANCE = 0.03  # of a model's whole sum: the persistent tokens of MAG and MAL are not counted
OF_THE_LAW = 0.05  # of what is left without projections
SIZE = Size(vocab=256, width=128, depth=1, heads=4)
LENGTHS = (256, 600)  # 600 fills no chunk

aten = torch.ops.aten


# Shapes to operations: what torch's counter does not know, or counts for grouped convolutions as if they were full.
CORRECTED = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: flop_counter.sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        flop_counter.sdpa_backward_flop_count(g, q, k, v)
    ),
    aten.linalg_solve_triangular: lambda _, b, *__, **___: prod(b) * b[-2],
    aten.mv: lambda a, *_, **__: 2 * prod(a),
    aten.baddbmm_: lambda _, a, b, *__, **___: 2 * prod(a) * b[-1],
    aten.addmm_: lambda _, a, b, *__, **___: 2 * prod(a) * b[-1],
    # One layer of oneDNN's LSTM: x [t, b, i], the weights of inputs [4 d, i] and of outputs [4 d, d].
    aten.mkldnn_rnn_layer: lambda x, w, r, *_, **__: 2 * x[0] * x[1] * (prod(w) + prod(r)),
    aten.mkldnn_rnn_layer_backward: lambda x, w, r, *_, **__: 4 * x[0] * x[1] * (prod(w) + prod(r)),
    aten.convolution_backward: lambda g, x, w, *_, **__: 4 * prod(g) * prod(w[1:]),
}


def size_of(name: str) -> Size:
    """One layer, or as many as the model's pattern has."""
    return deep_enough(registry.entry(name), SIZE)


@cache
def counted(name: str, time: int, **settings) -> tuple[int, int]:
    """What torch counts of one text, forward and backward, in the form whose operations it can see."""
    cls = registry.entry(name).cls
    has_forms = "provider" in parameters(cls) and registry.entry(name).trained_as({})[0].takes("chunked")
    model = build(name, size_of(name), **settings, **({"provider": "chunked"} if has_forms else {}))
    tokens = torch.zeros(1, time, dtype=torch.long)
    with probing(), flop_counter.FlopCounterMode(display=False, custom_mapping=CORRECTED) as counter:
        logits, _ = model(tokens)
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward, counter.get_total_flops() - forward


def projections(model: nn.Module, time: int) -> float:
    vocab, width = model.embedding.weight.shape
    return 2 * time * vocab * width + counts.linear_flops(model, time).forward


@pytest.mark.sampled(3)
@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("name", core_first())
def test_formula_agrees_with_the_counter(name, time):
    # Rows of MesaNet stop by themselves: in a text of one token, after two steps.
    settings = {"steps": 2} if name == "mesanet" else {}
    if name == "bahdanau" and time > additive.KEPT:
        pytest.skip("its backward pass computes the forward pass of so long a text again, which no formula counts")
    model = build(name, size_of(name), **settings)
    said = counts.flops(model, time)
    forward, backward = counted(name, time, **settings)
    assert said.forward == pytest.approx(forward, rel=TOLERANCE)
    assert said.backward == pytest.approx(backward, rel=TOLERANCE)
    rest = projections(model, time)
    assert said.forward - rest == pytest.approx(forward - rest, rel=OF_THE_LAW)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("titans-lmm", {"memory_depth": 1}),
        ("titans-lmm", {"memory_depth": 1, "chunk": 4}),
        ("titans-lmm", {"memory_depth": 3, "expansion": 2, "residual": True}),
        ("titans-mac", {"memory_tokens": 16}),
        ("rmt", {"segment": 48, "memory": 3}),
        ("mamba2", {"states": 32}),
    ],
    ids=str,
)
def test_formula_follows_the_settings(name, settings):
    said = counts.flops(build(name, SIZE, **settings), 256)
    forward, backward = counted(name, 256, **settings)
    assert said.forward == pytest.approx(forward, rel=TOLERANCE)
    assert said.backward == pytest.approx(backward, rel=TOLERANCE)


def test_literal_reading_counts_what_passes_twice():
    said = counts.flops(build("titans-mac", SIZE, literal=True), 256)
    assert said.forward == pytest.approx(counted("titans-mac", 256, literal=True)[0], rel=TOLERANCE)
    assert said.forward > counts.flops(build("titans-mac", SIZE), 256).forward


def per_token(name: str, length: int) -> float:
    return costs.training_flops_per_token(name, size_of(name), length)


def test_only_attention_and_a_growing_number_of_states_cost_more_the_longer_the_text():
    growing = [name for name in registry.names() if per_token(name, 8192) > 1.02 * per_token(name, 1024)]
    assert growing == [
        "bahdanau", "transformer", "log-linear-mamba2", "log-linear-gated-deltanet", "r-transformer", "knn-lm", "hybrid",
    ]  # fmt: skip


def test_costs_of_one_model():
    found = costs.costs("retnet", SIZE, 300)
    model = build("retnet", SIZE)
    assert found.parameters == sum(p.numel() for p in model.parameters()) - SIZE.vocab * SIZE.width
    assert found.state_bytes == 4 * SIZE.width * 2 * SIZE.width // SIZE.heads
    assert found.training == pytest.approx(3 * found.forward)
    assert found.training == per_token("retnet", 300)
    with pytest.raises(ValueError, match="at least 1 token"):
        costs.costs("retnet", SIZE, 0)


def test_state_update_without_matrix_form_is_counted_apart():
    assert counts.flops(build("mamba", SIZE), 64).elementwise > 0
    assert counts.flops(build("mamba2", SIZE), 64).elementwise == 0


def test_class_without_a_formula_has_no_figure(monkeypatch):
    monkeypatch.delattr(registry.entry("retnet").cls, "flops")
    found = costs.costs("retnet", SIZE, 64)
    assert found.forward is None and found.training is None and found.state_bytes > 0
    assert per_token("retnet", 64) is None
