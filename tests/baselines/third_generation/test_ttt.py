"""Test-time training: the recurrence against its definition, the dual form against the recurrence, and the layer around."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import baselines  # noqa: F401  fills the registry
from baselines.third_generation.ttt import TTTMLP, TTTLinear, rotation, turned
from models.language_model import Block, Size, build, state_bytes
from models.ops.native_build import compiler
from models.ops.providers import watch
from models.ops.ttt import chunked as dual
from models.ops.ttt.native import native
from models.ops.ttt.recurrence import network, recurrence

HEADS, WIDTH, MINI_BATCH = 3, 4, 8
FORMS = [dual.chunked, pytest.param(native, marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))]


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


def inputs(layers: int, time: int, seed: int = 0, rate: float = 1.0) -> list[Tensor]:
    """q, k, v, rate, factor, then a matrix per layer, then scale and bias; float64, two rows."""
    torch.manual_seed(seed)
    make = partial(torch.randn, dtype=torch.float64)
    widths = [WIDTH, *[2 * WIDTH] * (layers - 1), WIDTH]
    factor = torch.linspace(1, 0.3, MINI_BATCH, dtype=torch.float64) + 0.1 * make(MINI_BATCH)
    tensors = [make(2, time, HEADS, WIDTH) for _ in range(3)]
    tensors += [rate * torch.rand(2, time, HEADS, dtype=torch.float64), factor]
    tensors += [0.4 * make(HEADS, i + 1, o) for i, o in zip(widths, widths[1:], strict=False)]
    tensors += [1 + 0.3 * make(HEADS, WIDTH), 0.3 * make(HEADS, WIDTH)]
    return [tensor.requires_grad_() for tensor in tensors]


def run(form, tensors: list[Tensor], pieces: list[int]):
    """y and the last state of a text read in pieces."""
    q, k, v, rate, factor, *weights, scale, bias = tensors
    ys, state, start = [], None, 0
    for size in pieces:
        a, b, c, d = (x[:, start : start + size] for x in (q, k, v, rate))
        y, state = form(a, b, c, rate=d, factor=factor, weights=tuple(weights), norm=(scale, bias), state=state)
        ys.append(y)
        start += size
    return torch.cat(ys, 1), state


@pytest.mark.parametrize("layers", [1, 2])
def test_law_is_its_definition(layers):
    """Every read computed from the definition: all gradients at the mini-batch's first weights, scaled by who reads."""
    time = 2 * MINI_BATCH + 3
    tensors = inputs(layers, time)
    q, k, v, rate, factor, *weights, scale, bias = (x.detach() for x in tensors)
    y, state = run(recurrence, [x.detach() for x in tensors], [time])
    for row, head in ((0, 0), (1, 2)):
        norm = (scale[head : head + 1], bias[head : head + 1])
        first = [layer[head].clone().requires_grad_() for layer in weights]
        for t in range(time):
            begin = t // MINI_BATCH * MINI_BATCH
            now = [layer.detach().clone() for layer in first]
            for j in range(begin, t + 1):
                z = network(k[row, j, head][None, None], tuple(first), norm)[0, 0]
                gradient = torch.autograd.grad(0.5 * (z - v[row, j, head]).square().sum(), first)
                for layer, part in zip(now, gradient, strict=True):
                    layer -= factor[t - begin] * rate[row, j, head] * part
            expected = network(q[row, t, head][None, None], tuple(now), norm)[0, 0]
            assert relative(y[row, t, head], expected) < 1e-12
            if t % MINI_BATCH == MINI_BATCH - 1:
                first = [layer.requires_grad_() for layer in now]
        assert all(relative(a[row, head], b) < 1e-12 for a, b in zip(state[0], first, strict=True))
    assert state[2] == 3


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("pieces", [[1], [5], [8], [24], [37], [3, 5, 1, 20, 7, 1]], ids=str)
def test_dual_form_is_the_law(form, layers, pieces, monkeypatch):
    """Forward, state and every gradient, the gradient of the state included; groups of two mini-batches."""
    monkeypatch.setattr(dual, "GROUP", 2)
    tensors = inputs(layers, sum(pieces), seed=len(pieces))
    (y, state), (fast_y, fast_state) = run(recurrence, tensors, [sum(pieces)]), run(form, tensors, pieces)
    assert fast_state[2] == state[2]
    flat, fast_flat = [y, *state[0], *state[1]], [fast_y, *fast_state[0], *fast_state[1]]
    for a, b in zip(fast_flat, flat, strict=True):
        assert a.shape == b.shape and (a - b).norm() <= 1e-10 * b.norm()
    ways = [torch.randn_like(x) for x in flat]
    losses = [sum((x * way).sum() for x, way in zip(part, ways, strict=True)) for part in (flat, fast_flat)]
    gradients, fast_gradients = (torch.autograd.grad(loss, tensors) for loss in losses)
    for a, b in zip(fast_gradients, gradients, strict=True):
        assert relative(a, b) < 1e-8


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rate", [0.0, 1e-8, 1 - 1e-8])
def test_dual_form_at_extreme_rates(form, rate):
    tensors = inputs(2, 21)
    tensors[3] = torch.full_like(tensors[3], rate / WIDTH).requires_grad_()
    tensors[4] = torch.tensor([0.0, 1.0] * (MINI_BATCH // 2), dtype=torch.float64, requires_grad=True)
    (y, _), (fast_y, _) = run(recurrence, tensors, [21]), run(form, tensors, [21])
    assert relative(fast_y, y) < 1e-10
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), tensors) for x in (fast_y, y)), strict=True):
        assert (a - b).norm() <= 1e-8 * b.norm() + 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_keeps_its_state_in_float32(form):
    tensors = [x.detach().to(torch.bfloat16) for x in inputs(2, 20)]
    y, state = run(form, tensors, [20])
    assert y.dtype == torch.bfloat16 and {x.dtype for x in (*state[0], *state[1])} == {torch.float32}
    exact, _ = run(dual.chunked, [x.float() for x in tensors], [20])
    assert relative(y.float(), exact) < 1e-2


def test_positions_turn_neighbouring_pairs_and_restart_with_the_mini_batch():
    x = torch.randn(1, 5, 2, 4, dtype=torch.float64)
    turn = rotation(4, period=3, start=2, time=5, like=x)
    y = turned(x, turn)
    for t, place in enumerate([2, 0, 1, 2, 0]):
        for pair, frequency in enumerate([1.0, 0.01]):
            angle = torch.tensor(place * frequency, dtype=torch.float64)
            cos, sin = angle.cos(), angle.sin()
            a, b = x[0, t, :, 2 * pair], x[0, t, :, 2 * pair + 1]
            expected = torch.stack([a * cos - b * sin, a * sin + b * cos], -1)
            torch.testing.assert_close(y[0, t, :, 2 * pair : 2 * pair + 2], expected)


def mixer(cls, **settings):
    torch.manual_seed(0)
    layer = cls(16, 2, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        layer.place_factor.clamp_(min=-0.03)  # no place is cut off
    return layer


@pytest.mark.parametrize("cls", [TTTLinear, TTTMLP])
@pytest.mark.parametrize("convolution, pre_convolution", [(0, 0), (0, 4), (4, 0), (4, 4)])
def test_layer_in_pieces_is_the_layer_and_its_law(cls, convolution, pre_convolution):
    layer = mixer(cls, convolution=convolution, pre_convolution=pre_convolution)
    x = torch.randn(2, 41, 16, dtype=torch.float64)
    whole, _ = layer(x)
    for size in (1, 15, 16, 17, 37):
        ys, state, sizes = [], None, set()
        for piece in x.split(size, 1):
            y, state = layer(piece, state)
            ys.append(y)
            sizes.add(state_bytes(state))
        assert relative(torch.cat(ys, 1), whole) < 1e-10, size
        assert len(sizes) == 1  # W and G from the first token on
    for part in layer.modules():
        if hasattr(part, "provider"):
            part.provider = "recurrence"
    with watch() as ran:
        assert relative(layer(x)[0], whole) < 1e-10
    assert ran == {"recurrence"}


@pytest.mark.parametrize("cls", [TTTLinear, TTTMLP])
def test_layer_is_causal_and_keeps_rows_apart(cls):
    layer = mixer(cls)
    x = torch.randn(2, 37, 16, dtype=torch.float64)
    y, _ = layer(x)
    for t in (3, 15, 16, 30):
        changed = x.clone()
        changed[0, t] += 1
        moved = (layer(changed)[0] - y).abs().amax(-1)
        assert moved[0, :t].max() < 1e-14 and moved[1].max() < 1e-14
        assert moved[0, t:].min() > 0  # and from there on, everything heard of it


@pytest.mark.parametrize("cls", [TTTLinear, TTTMLP])
def test_state_stays_untouched(cls):
    layer = mixer(cls)
    x = torch.randn(2, 30, 16, dtype=torch.float64)
    _, state = layer(x[:, :21])
    held = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
    copies = [leaf.clone() for leaf in held]
    once, twice = layer(x[:, 21:], state)[0], layer(x[:, 21:], state)[0]
    assert torch.equal(once, twice)
    assert all(torch.equal(a, b) for a, b in zip(copies, held, strict=True))


def test_negative_place_factor_is_clipped_so_that_nothing_is_learned():
    layer = mixer(TTTLinear, convolution=0, pre_convolution=0)
    with torch.no_grad():
        layer.place_factor.fill_(-5.0)
    x = torch.randn(1, 35, 16, dtype=torch.float64)
    y, (_, (weights, _, _)) = layer(x)
    assert torch.equal(weights[0][0], layer.first_weights(torch.float64)[0])
    x[:, 0] += 1
    assert torch.equal(layer(x)[0][:, 1:], y[:, 1:])


@pytest.mark.parametrize("name", ["ttt-linear", "ttt-mlp"])
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    model = build(name, Size(64, 32, 2, 2))
    tokens = torch.randint(64, (2, 45))
    with watch() as ran:
        logits, _ = model(tokens[:, :-1])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert ran in ({"native"}, {"chunked"})
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.norm() > 0, key
    assert (model.blocks[0].mixer.place_factor.grad != 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        *({"inner": 18}, {"inner": 2}, {"mini_batch": 0}, {"base_rate": 0.0}),
        *({"convolution": -1}, {"pre_convolution": -1}),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="TTT needs"):
        TTTLinear(16, 2, **settings)


def test_block_with_the_convolution_before_is_the_published_one():
    """u = x + conv(norm(x)); u + TTT(norm(u)), the second norm being that which the shell adds without the convolution."""
    layer, bare = mixer(TTTLinear), mixer(TTTLinear, pre_convolution=0)
    bare.load_state_dict({name: value for name, value in layer.state_dict().items() if name in bare.state_dict()})
    x = 5 * torch.randn(2, 41, 16, dtype=torch.float64)
    block, plain = Block(16, layer, 8).double(), Block(16, bare, 8).double()
    assert block.mixer_norm is None
    with torch.no_grad():
        plain.mixer_norm.weight.copy_(layer.input_norm.weight)
        plain.load_state_dict({n: v for n, v in block.state_dict().items() if n.startswith("feed")}, strict=False)
        u = x + layer.pre_convolution(layer.pre_norm(x))[0]
        assert relative(block(x, None)[0], plain(u, None)[0]) < 1e-14


def test_inner_rate_of_the_mlp_rises_over_the_warm_up_and_that_of_the_linear_kind_does_not():
    x = torch.randn(1, 20, 16, dtype=torch.float64)
    for cls, first in ((TTTMLP, 0.1), (TTTLinear, 1.0)):
        layer, scaled = mixer(cls), mixer(cls)
        for share in (0.0, 0.25, 1.0):
            layer.warm_up(share)
            scaled.base_rate = layer.base_rate * (first + share * (1 - first))
            assert relative(layer(x)[0], scaled(x)[0]) < 1e-14
    assert torch.equal(layer(x)[0], mixer(TTTLinear)(x)[0])


def test_first_inner_rate_must_be_positive():
    with pytest.raises(ValueError, match="TTT needs first_rate > 0"):
        TTTMLP(16, 2, first_rate=0.0)
    assert TTTMLP(16, 2, first_rate=None).first_share == 1.0
