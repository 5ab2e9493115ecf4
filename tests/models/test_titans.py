"""Titans' wiring: streaming, causality, what each variant reads, stable rates, and gradients to everything learned."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import baselines  # noqa: F401  fills the registry with the reference
from models.check import check
from models.kernels import neural_memory as linear
from models.kernels import neural_memory_deep as deep
from models.kernels import watch
from models.layers import split_heads
from models.neural_memory import Rule
from models.titans.lmm import TitansLMM
from models.titans.mac import TitansMAC
from models.titans.mag import TitansMAG
from models.titans.mal import TitansMAL
from models.titans.memory_layer import MOMENTUM_BOUND, rate_bound
from models.titans.window import PrefixedWindow

WIDTH, HEADS = 16, 2
LINEAR = {"memory_depth": 1, "chunk": 4}
CASES = {
    "lmm": (TitansLMM, {"chunk": 8}),
    "lmm linear": (TitansLMM, LINEAR),
    "lmm residual": (TitansLMM, {"chunk": 8, "residual": True, "expansion": 2}),
    "lmm online": (TitansLMM, {"memory_depth": 1, "chunk": 1, "decayed": True}),
    "lmm exclusive": (TitansLMM, {"chunk": 8, "exclusive": True, "memory_depth": 3}),
    "lmm fine gates": (TitansLMM, {"chunk": 8, "layer_gates": True, "forget": "channel"}),
    "lmm layer gates": (TitansLMM, {"chunk": 8, "layer_gates": True, "memory_depth": 3}),
    "lmm linear channels": (TitansLMM, {**LINEAR, "forget": "channel"}),
    "lmm stored states": (TitansLMM, {"chunk": 8, "store_every": 16}),
    "lmm bare": (TitansLMM, {"chunk": 8, "momentum": False, "forget": "none", "convolution": False}),
    "lmm linear bare": (TitansLMM, {**LINEAR, "momentum": False, "forget": "none", "convolution": False}),
    "mag": (TitansMAG, {"chunk": 8, "window": 12, "persistent": 3}),
    "mag bare": (TitansMAG, {"chunk": 8, "window": 12, "persistent": 0, "convolution": False}),
    "mal": (TitansMAL, {"chunk": 8, "window": 12, "persistent": 3}),
    "mal bare": (TitansMAL, {**LINEAR, "window": 12, "persistent": 0, "forget": "none"}),
    "mal to the letter": (TitansMAL, {**LINEAR, "window": 12, "inner_residual": False}),
    "mac": (TitansMAC, {"chunk": 8, "segment": 16, "persistent": 3}),
    "mac pooled": (TitansMAC, {"chunk": 4, "segment": 12, "persistent": 3, "memory_tokens": 4}),
    "mac bare": (TitansMAC, {"chunk": 8, "segment": 16, "persistent": 0, "momentum": False, "convolution": False}),
    "mac linear": (TitansMAC, {**LINEAR, "segment": 12}),
}


def mixer(case: str, **settings) -> nn.Module:
    cls, own = CASES[case]
    torch.manual_seed(0)
    return cls(WIDTH, HEADS, **{**own, **settings})


def text(time: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, time, WIDTH, generator=torch.Generator().manual_seed(time))


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


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

    monkeypatch.setattr("models.titans.memory_layer.choose", lambda *_: watching)
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


@torch.no_grad()
def test_mac_is_the_paper_in_its_order():
    """Two segments again, step by step, with attention over [P | h | S] as drawn: P, then all rows of h, then the segment."""
    layer = mixer("mac linear", segment=8, chunk=8).double()
    x = text(16).double()
    expected, _ = layer(x)
    asked, _ = layer.memory.queries(x, None)
    qkv, _ = layer.conv(torch.cat([layer.query(x), layer.key_value(x)], -1))
    count, state, outputs = len(layer.persistent), None, []
    for start in (0, 8):
        piece = slice(start, start + 8)
        weights = state[2][0][0] if state else layer.memory.initial[0].expand(2, -1, -1, -1)
        h = torch.einsum("bthi,bhio->btho", asked[:, piece], weights)
        h = layer.recall_out(layer.recall_norm(h))
        context = layer.key_value(torch.cat([layer.persistent.double().expand(2, -1, -1), h], 1))
        keys, values = (
            split_heads(torch.cat([c, own[:, piece]], 1), HEADS)
            for c, own in zip(context.chunk(2, -1), qkv.chunk(3, -1)[1:], strict=True)
        )
        local = torch.arange(count, count + 8)
        places = torch.cat([torch.arange(count), local, local])
        keys, q = turned(keys, places), turned(split_heads(qkv.chunk(3, -1)[0][:, piece], HEADS), local)
        seen = (local[:, None] >= places) | (torch.arange(len(places)) < count)
        scores = torch.einsum("bihd,bjhd->bhij", q, keys) / q.shape[-1] ** 0.5
        y = torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), values)
        y = layer.attention_out(y.flatten(2))
        read, state = layer.memory(y, state)
        m = layer.recall_out(layer.recall_norm(read))
        gated = layer.gating.kept(y) * torch.sigmoid(layer.gating.gate(m))
        outputs.append(layer.out(gated))
    assert relative(torch.cat(outputs, 1), expected) < 1e-12


@torch.no_grad()
def test_pooled_row_is_one_mean_query_seen_from_its_last_token_on():
    layer = mixer("mac pooled").double()
    asked = layer.memory.queries(text(12).double(), None)[0]
    pooled, waiting = layer._pool(asked[:, 2:], asked[:, :2])  # any split: two queries were waiting
    assert pooled.shape[1] == 4 and waiting.shape[1] == 0
    means = asked.unflatten(1, (4, 3)).mean(2)
    assert relative(pooled, F.normalize(means, dim=-1)) < 1e-4
    seen = layer._visible(0, 12, 4, 12)[:, 3:7]
    assert [row.index(True) for row in seen.T.tolist()] == [2, 5, 8, 11]
    assert seen[-1].all()


def test_one_memory_token_per_token_is_the_default():
    x = text(40)
    torch.testing.assert_close(mixer("mac")(x)[0], mixer("mac", memory_tokens=16)(x)[0], rtol=0, atol=0)
    assert relative(mixer("mac", memory_tokens=8)(x)[0], mixer("mac")(x)[0]) > 1e-3


def test_literal_mac_is_reported_as_leaking():
    asked = ["causality by perturbation", "causality by gradient"]
    sound = check("titans-mac", only=asked)
    leaking = check("titans-mac", only=asked, literal=True)
    assert all(each.passed for each in sound), sound
    assert not any(each.passed for each in leaking), leaking


@torch.no_grad()
def test_literal_mac_leaks_in_both_ways_and_within_the_segment_only():
    layer, x = mixer("mac linear", literal=True, segment=8), text(24)
    changed = x.clone()
    changed[:, 13] += 1  # in the second segment, 8 to 15
    moved = (layer(changed)[0] - layer(x)[0]).abs().amax((0, 2))
    assert moved[:8].max() < 1e-6 and moved[8:13].min() > 1e-6
    layer._visible = mixer("mac linear", segment=8)._visible  # the rows of h hidden again: the gate alone still leaks
    moved = (layer(changed)[0] - layer(x)[0]).abs().amax((0, 2))
    assert moved[8:13].min() > 1e-6


def turned(x: Tensor, places: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = (places[:, None] * 10000.0 ** (-torch.arange(half).double() / half))[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


@torch.no_grad()
def test_mac_recalls_what_an_earlier_segment_wrote():
    layer = mixer("mac")
    x = text(48)
    changed = x.clone()
    changed[:, :8] += 1
    moved = (layer(changed)[0] - layer(x)[0])[:, 16 + 4 :]  # beyond the reach of attention and convolutions
    assert moved.abs().max() > 1e-5


@torch.no_grad()
def test_window_sees_its_tokens_and_the_prefix_wherever_it_stands():
    torch.manual_seed(0)
    window, prefix = 6, 3
    branch = PrefixedWindow(WIDTH, HEADS, WIDTH, window, prefix)
    x = text(60, 1)
    y, _ = branch(x)
    place = 40  # of the text, which begins behind the prefix
    for back, seen in ((window - 1, True), (window + 2, True), (window + 3, False)):  # three more by the convolution
        changed = x.clone()
        changed[:, prefix + place - back] += 1
        assert (relative(branch(changed)[0][:, place], y[:, place]) > 1e-5) == seen, back
    changed = x.clone()
    changed[:, 0] += 1
    assert relative(branch(changed)[0][:, place], y[:, place]) > 1e-5
    same = torch.cat([x[:, :prefix], x[:, -1:].expand(-1, 300, -1)], 1)
    y, _ = branch(same)
    assert relative(y[:, 20], y[:, 299]) < 1e-5


@torch.no_grad()
def test_window_is_softmax_over_prefix_and_window():
    torch.manual_seed(0)
    branch = PrefixedWindow(WIDTH, HEADS, WIDTH, 6, 3).double()
    x = text(3 + 20).double()
    q, k, v = (split_heads(part, HEADS) for part in branch.conv(branch.qkv(x))[0].chunk(3, -1))
    places = torch.arange(20)
    distance = places[:, None] - places
    with_place = torch.einsum("bihd,bjhd->bhij", turned(q[:, 3:], places), turned(k[:, 3:], places))
    with_place = with_place.masked_fill((distance < 0) | (distance >= 6), float("-inf"))
    without = torch.einsum("bihd,bjhd->bhij", q[:, 3:], k[:, :3])
    scores = torch.cat([without, with_place], -1) / q.shape[-1] ** 0.5
    y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    assert relative(branch(x)[0], y.flatten(2)) < 1e-12


@torch.no_grad()
def test_mag_is_attention_gated_by_memory():
    layer = mixer("mag").double()
    x = text(30).double()
    whole = torch.cat([layer.persistent.expand(2, -1, -1), x], 1)
    m, y = layer.memory(whole)[0].flatten(2)[:, 3:], layer.attention(whole)[0]
    unit = [part / part.square().mean(-1, keepdim=True).add(1e-6).sqrt() for part in (y, m)]
    assert relative(layer.out(unit[0] * torch.sigmoid(unit[1])), layer(x)[0]) < 1e-12


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


@pytest.mark.parametrize("case", ["lmm", "lmm linear"])
def test_memory_grows_with_stored_states_not_with_chunks(case: str):
    """From a text to one of twice its length, what is kept grows by the projections and by one state per `store_every`."""
    growth = {}
    for every in (None, 32, 128):
        layer = mixer(case, store_every=every)
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
    layer = TitansLMM(32, 2, memory_depth=depth, chunk=chunk)
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
    initial = tuple(TitansLMM(32, 2, memory_depth=depth, chunk=chunk).memory.initial)
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
    """At saturated gates the layer hands the law the bounds themselves: momentum 0.97, rate bound * (1 - momentum)."""
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
        layer = cls(256, 4, store_every=256, **shared, **segment)
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
