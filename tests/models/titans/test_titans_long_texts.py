"""Titans' memory over long texts: what it stores for the gradient, and that it stays bounded whatever its keys are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, seeded
from models.ops.neural_memory import chunked_deep as deep
from models.ops.neural_memory import chunked_linear as linear
from models.ops.neural_memory.recurrence import Rule
from models.titans.lmm import TitansLMM
from models.titans.memory_layer import MOMENTUM_BOUND, rate_bound
from models.titans.memory_settings import MemorySettings
from tests.support.titans_layers import HEADS, mixer, relative, text


def kept_numbers(layer: nn.Module, time: int) -> int:
    """Numbers of float32 that live between a forward pass and its gradient, by the allocator's own account."""
    x = text(time)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        y, state = layer(x)
    assert y.requires_grad and state is not None  # alive while the account was taken
    return sum(event.self_cpu_memory_usage for event in profile.events()) // 4


@pytest.mark.parametrize("case", ["lmm", "lmm linear", "lmm fine gates", "mac"])
def test_stored_states_change_no_gradient(case: str):
    settings = {"store_every": 16} if case != "mac" else {"store_every": 8}
    grads = []
    for own in ({}, settings):
        layer = mixer(case, **own).double()
        y, _ = layer(text(53).double())
        y.square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in layer.parameters()]))
    assert relative(*grads) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lmm", pytest.param("lmm linear", marks=pytest.mark.slow)])
def test_memory_grows_with_stored_states_not_with_chunks(case: str):
    """From a text to one of twice its length, what is kept grows by the projections and by one state per `store_every`."""
    growth = {}
    for every in (None, 32, 128):
        layer = mixer(case, store_every=every, provider="chunked")
        growth[every] = kept_numbers(layer, 512) - kept_numbers(layer, 256)
    state = 2 * sum(weight.numel() for weight in layer.memory.initial) * 2  # [W, S] of two rows
    assert growth[32] - growth[128] == pytest.approx((8 - 2) * state, rel=0.05)
    assert growth[None] - growth[32] > (256 // layer.memory.rule.chunk - 8) * state * 0.7


def correlated(kind: str, time: int, width: int) -> Tensor:
    draws = torch.randn(1, time, 2, width, generator=torch.Generator().manual_seed(1))
    if kind == "equal":
        draws = draws[:, :1].expand(-1, time, -1, -1)
    if kind == "neighbours":
        rows = [draws[:, 0]]
        for t in range(1, time):
            rows.append(0.9 * rows[-1] + 0.19**0.5 * draws[:, t])
        draws = torch.stack(rows, 1)
    return F.normalize(F.silu(draws), dim=-1)


@pytest.mark.parametrize("kind", ["neighbours", "equal"])
@pytest.mark.parametrize("chunk, depth", [(1, 1), (4, 1), (16, 1), (64, 1), (16, 2), (64, 2), (16, 4)])
@torch.no_grad()
def test_memory_stays_bounded_under_correlated_keys_at_full_rate(kind: str, chunk: int, depth: int):
    time, width = 3000, 16
    k = correlated(kind, time, width)
    v = F.normalize(torch.randn(1, time, 2, width, generator=torch.Generator().manual_seed(2)), dim=-1)
    torch.manual_seed(0)
    layer = TitansLMM(32, 2, memory=MemorySettings(memory_depth=depth, chunk=chunk))
    initial = tuple(layer.memory.initial)
    for momentum in (0.0, 0.5, MOMENTUM_BOUND):
        eta = torch.full((1, time, 2), momentum)
        y, _ = (linear if depth == 1 else deep).chunked(
            k,
            k,
            v,
            momentum=eta,
            rate=rate_bound(chunk, depth) * (1 - eta),
            keep=torch.ones_like(eta),
            initial=initial,
            rule=Rule(chunk),
        )
        assert y.isfinite().all() and y.norm(dim=-1).max() < 8, momentum


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "chunk, depth, options",
    [(1, 1, {}), (16, 1, {}), (16, 2, {}), (64, 2, {}), (16, 2, {"residual": True}), (16, 2, {"decayed": True})],
)
@torch.no_grad()
def test_sixteen_thousand_correlated_tokens_stay_bounded(chunk: int, depth: int, options: dict):
    """At full rate, strong momentum and nothing forgotten; read in two pieces, so the state is carried too."""
    time, width = 16384, 16
    k = correlated("neighbours", time, width)
    v = F.normalize(correlated("neighbours", time, width) - 0.2, dim=-1)
    torch.manual_seed(0)
    initial = tuple(TitansLMM(32, 2, memory=MemorySettings(memory_depth=depth, chunk=chunk)).memory.initial)
    eta = torch.full((1, time, 2), 0.9)
    gates = {"momentum": eta, "rate": rate_bound(chunk, depth) * (1 - eta), "keep": torch.ones_like(eta)}
    form = (linear if depth == 1 else deep).chunked
    state, largest = None, 0.0
    for part in (slice(0, 9001), slice(9001, time)):
        own = {name: gate[:, part] for name, gate in gates.items()}
        y, state = form(
            k[:, part], k[:, part], v[:, part], **own, initial=initial, rule=Rule(chunk, **options), state=state
        )
        assert y.isfinite().all()
        largest = max(largest, y.norm(dim=-1).max().item())
    assert largest < 8
    assert all(part.isfinite().all() and part.abs().max() < 50 for group in state[:2] for part in group)


@torch.no_grad()
def test_gates_stay_in_their_ranges():
    """At saturated gates the layer hands the recurrence the bounds themselves: momentum 0.97, rate bound * (1 - momentum)."""
    layer = mixer("lmm linear")
    layer.memory.gates.weight.zero_()
    layer.memory.gates.bias[:] = torch.tensor([50.0] * (2 * HEADS) + [-50.0] * HEADS)
    _, state = layer(text(3))
    k, v, momentum, rate, keep = state[2][2]
    for part in (k, v):
        torch.testing.assert_close(part.norm(dim=-1), torch.ones_like(keep), atol=1e-3, rtol=0)
    torch.testing.assert_close(momentum, torch.full_like(momentum, 0.97))
    torch.testing.assert_close(rate, torch.full_like(rate, rate_bound(4, 1) * 0.03))
    torch.testing.assert_close(keep, torch.ones_like(keep))


@pytest.mark.parametrize("name", ["titans-lmm", "titans-mac", "titans-mag", "titans-mal"])
@torch.no_grad()
def test_matrices_ten_times_as_large_stay_finite_on_equal_tokens(name):
    """The rate's bound counts on hidden layers about as long as they are drawn; where they have grown, the rate falls."""
    model = seeded(name, Size(64, 64, 4, 4), 0)
    for matrix in (p for p in model.parameters() if p.dim() >= 2):
        matrix.mul_(10)
    for token in (0, 3, 7):
        assert model(torch.full((1, 1024), token))[0].isfinite().all()
