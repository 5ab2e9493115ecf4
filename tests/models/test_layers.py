"""Attention against a dense mask, at any split; rotary positions; the short convolution; the norms; RWKV's shift."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import causal_attention, window_attention
from models.layers import (
    RMSNorm,
    ShortConvolution,
    SwiGLU,
    l2_norm,
    rotary,
    split_heads,
    step_bias,
)
from models.layers.rwkv import RWKVChannelMixing, token_shift

CLOSE = {"rtol": 0, "atol": 1e-12}
TIME = 45
CUTS = {
    "whole": [],
    "single": list(range(1, TIME)),
    "sevens": list(range(7, TIME, 7)),
    "around the window": [7, 8, 9, 16, 17, 24],
    "long then short": [40, 41],
}


def qkv(time: int = TIME, heads: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, time, heads, 4, dtype=torch.float64, generator=generator) for _ in range(3))


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention with a mask [rows, columns], written out."""
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~mask, float("-inf")).softmax(-1), v)


def pieces(tensors: tuple[Tensor, ...], cuts: list[int]):
    places = [0, *cuts, tensors[0].shape[1]]
    for start, stop in zip(places, places[1:], strict=False):
        yield tuple(x[:, start:stop] for x in tensors)


@pytest.mark.parametrize("grad", [False, True], ids=["decoding", "training"])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_causal_attention_is_the_dense_mask_at_any_split(cuts, grad):
    q, k, v = qkv()
    cache, answers = None, []
    with torch.set_grad_enabled(grad):
        for piece in pieces((q, k.requires_grad_(grad), v), cuts):
            y, cache = causal_attention(*piece, cache)
            answers.append(y)
    assert torch.allclose(torch.cat(answers, 1), dense(q, k, v, torch.ones(TIME, TIME).bool().tril()), **CLOSE)
    assert cache[2] == TIME


@torch.no_grad()
def test_two_continuations_of_one_cache_do_not_write_over_each_other():
    q, k, v = qkv()
    parts = list(pieces((q, k, v), [20, 21]))
    _, cache = causal_attention(*parts[0])
    _, cache = causal_attention(*parts[1], cache)  # from here on the buffer has room behind its filled part
    first, one = causal_attention(*parts[2], cache)
    other, _ = causal_attention(*(-x for x in parts[2]), cache)
    assert torch.equal(one[0][:, :TIME], k)  # before the first is fed again, which would mend it
    again, _ = causal_attention(*parts[2], cache)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@torch.no_grad()
def test_cache_is_not_copied_at_every_token():
    q, k, v = qkv(400)
    cache, buffers = None, set()
    for piece in pieces((q, k, v), list(range(1, 400))):
        _, cache = causal_attention(*piece, cache)
        buffers.add(cache[0].data_ptr())
    assert len(buffers) < 10
    assert cache[0].shape[1] <= 400 + max(64, 400 // 4)


def band(window: int, prefix: int = 0) -> Tensor:
    """The dense mask of a window with always visible prefix columns in front."""
    rows, columns = torch.arange(TIME)[:, None], torch.arange(TIME)
    seen = (columns <= rows) & (columns > rows - window)
    return torch.cat([torch.ones(TIME, prefix, dtype=torch.bool), seen], 1)


@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("window", [1, 2, 8, TIME, TIME + 9])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_window_attention_is_the_dense_mask_at_any_split(cuts, window, prefix):
    q, k, v = qkv()
    learned = tuple(x[:1, :prefix] + 1 for x in qkv()[1:]) if prefix else None
    past, answers = None, []
    for piece in pieces((q, k, v), cuts):
        y, past = window_attention(*piece, window, past, learned)
        answers.append(y)
    if learned:
        k, v = (torch.cat([x.expand(2, -1, -1, -1), y], 1) for x, y in zip(learned, (k, v), strict=True))
    assert torch.allclose(torch.cat(answers, 1), dense(q, k, v, band(window, prefix)), **CLOSE)
    assert past[0].shape[1] == min(window - 1, TIME)


def test_window_attention_has_the_gradients_of_the_dense_mask():
    q, k, v = (x.requires_grad_() for x in qkv())
    learned = tuple(x.detach()[:1, :3].clone().requires_grad_() for x in (k, v))
    weights = qkv(heads=3)[0]
    inputs = (q, k, v, *learned)
    y, past = window_attention(*(x[:, :20] for x in (q, k, v)), 8, None, learned)
    z, _ = window_attention(*(x[:, 20:] for x in (q, k, v)), 8, past, learned)
    got = torch.autograd.grad((torch.cat([y, z], 1) * weights).sum(), inputs)
    keys, values = (torch.cat([x.expand(2, -1, -1, -1), y], 1) for x, y in zip(learned, (k, v), strict=True))
    expected = torch.autograd.grad((dense(q, keys, values, band(8, 3)) * weights).sum(), inputs)
    assert all(torch.allclose(a, b, **CLOSE) for a, b in zip(got, expected, strict=True))


def test_window_past_holds_no_longer_buffer():
    q, k, v = qkv()
    _, past = window_attention(q, k, v, 8)
    assert all(x.untyped_storage().nbytes() == 2 * 7 * 3 * 4 * 8 for x in past)


def test_rotary_turns_pairs_by_place():
    x = torch.zeros(1, 3, 1, 4, dtype=torch.float64)
    x[..., 0] = 1
    turned = rotary(x, start=5)
    for index, place in enumerate((5, 6, 7)):
        assert turned[0, index, 0].tolist() == pytest.approx([math.cos(place), 0, math.sin(place), 0])
    x = x.roll(1, -1)  # the second pair turns by place / sqrt(base)
    assert rotary(x, start=5)[0, 2, 0].tolist() == pytest.approx([0, math.cos(0.07), 0, math.sin(0.07)])


@pytest.mark.parametrize("shift", [1, 1000])
def test_rotary_products_depend_on_distance_alone(shift):
    q, k, _ = qkv()
    scores, moved = (torch.einsum("bihd,bjhd->bhij", rotary(q, s), rotary(k, s)) for s in (0, shift))
    assert torch.allclose(scores, moved, rtol=0, atol=1e-10)
    assert not torch.allclose(scores, torch.einsum("bihd,bjhd->bhij", q, k))


def test_rotary_of_a_piece_is_the_piece_of_the_rotary():
    q, _, _ = qkv()
    assert torch.equal(rotary(q, 3)[:, 10:], rotary(q[:, 10:], 13))


def test_rotary_keeps_its_angles_far_into_a_text():
    far = 2**24 + 1  # the first whole number that float32 does not hold
    x = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert rotary(x, far)[0, 0, 0].tolist() == pytest.approx([math.cos(far), math.sin(far)], abs=1e-6)


def test_rotary_refuses_an_odd_head_width():
    with pytest.raises(ValueError, match="even head width, not 3"):
        rotary(torch.zeros(1, 1, 1, 3), 0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_short_convolution_is_the_sum_over_the_last_inputs_at_any_split(cuts, bias):
    layer = ShortConvolution(5, kernel=4, bias=bias).double()
    if bias:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, TIME, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(x)
    for t in range(TIME):
        for back in range(min(4, t + 1)):
            expected[:, t] += layer.weight[:, 0, 3 - back].detach() * x[:, t - back]
    if bias:
        expected += layer.bias.detach()
    state, answers = None, []
    for (piece,) in pieces((x,), cuts):
        kept = None if state is None else state.clone()
        before = state
        y, state = layer(piece, state)
        assert before is None or torch.equal(before, kept)
        answers.append(y)
    assert torch.allclose(torch.cat(answers, 1), expected, **CLOSE)
    assert torch.equal(state, x[:, -3:])
    assert state.untyped_storage().nbytes() == 2 * 3 * 5 * 8


def test_short_convolution_of_a_text_shorter_than_its_kernel():
    layer = ShortConvolution(2, kernel=4).double()
    x = torch.ones(1, 2, 2, dtype=torch.float64)
    y, state = layer(x)
    assert torch.allclose(y[0, 0], layer.weight[:, 0, 3])
    assert torch.allclose(y[0, 1], layer.weight[:, 0, 2:].sum(1))
    assert state.tolist() == [[[0, 0], [1, 1], [1, 1]]]


def test_short_convolution_keeps_its_dtype_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        y, state = ShortConvolution(4)(torch.zeros(1, 6, 4, dtype=torch.bfloat16))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)


@pytest.mark.parametrize("bias", [True, False])
def test_short_convolution_of_float32_has_gradients_under_autocast(bias):
    torch.manual_seed(0)
    layer, x = ShortConvolution(4, bias=bias), torch.randn(1, 6, 4, requires_grad=True)
    exact = torch.autograd.grad(layer(x)[0].square().sum(), [x, *layer.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    rough = torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])
    assert all((a - b).norm() < 0.02 * b.norm() for a, b in zip(rough, exact, strict=True))


def test_rms_norm_by_hand():
    norm = RMSNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    assert norm(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([3 / math.sqrt(12.5), 40 / math.sqrt(12.5)])
    assert RMSNorm(2, weight=False).weight is None


def test_l2_norm_gives_unit_length_and_survives_zero():
    assert l2_norm(torch.tensor([3.0, 4.0]), eps=0.0).tolist() == pytest.approx([0.6, 0.8])
    x = torch.zeros(3, requires_grad=True)
    l2_norm(x).sum().backward()
    assert x.grad.isfinite().all()


def test_swiglu_by_hand():
    layer = SwiGLU(1, 1)
    with torch.no_grad():
        layer.gate_up.weight.copy_(torch.tensor([[1.0], [3.0]]))
        layer.down.weight.fill_(5.0)
    assert layer(torch.tensor([2.0])).item() == pytest.approx(5 * F.silu(torch.tensor(2.0)).item() * 6)


def test_split_heads_keeps_a_head_together():
    assert split_heads(torch.arange(6).view(1, 1, 6), 2).tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


def test_step_bias_is_log_uniform_behind_softplus():
    torch.manual_seed(0)
    steps = F.softplus(step_bias(4000))
    assert 1e-3 * 0.999 <= steps.min() and steps.max() <= 0.1 * 1.001
    assert steps.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("time", [1, 9])
def test_short_convolution_has_the_gradients_of_finite_differences(time, bias):
    torch.manual_seed(0)
    layer = ShortConvolution(3, bias=bias).double()
    parts = [torch.randn(2, rows, 3, dtype=torch.float64, requires_grad=True) for rows in (time, 3)]
    given = list(layer.parameters())
    assert torch.autograd.gradcheck(lambda x, state, *_: layer(x, state), (*parts, *given))


@pytest.mark.parametrize("gates", [1, 2])
def test_rwkv_channel_mixing_is_its_equation_over_any_cut(gates):
    torch.manual_seed(0)
    layer = RWKVChannelMixing(4, 6, torch.rand(gates, 4)).double()
    assert not any(closed.weight.any() for closed in (layer.value, layer.gate) if closed is not None)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    state, ys = None, []
    for piece in x.split([1, 4, 2], 1):
        y, state = layer(piece, state)
        ys.append(y)
    before = torch.cat([torch.zeros(2, 1, 4, dtype=torch.float64), x[:, :-1]], 1)
    mixed = [x + share * (before - x) for share in layer.mix]
    right = torch.relu(mixed[0] @ layer.key.weight.T) ** 2 @ layer.value.weight.T
    if gates == 2:
        right = right * torch.sigmoid(mixed[1] @ layer.gate.weight.T)
    torch.testing.assert_close(torch.cat(ys, 1), right)
    assert torch.equal(state, x[:, -1])


def test_token_shift_hands_on_the_last_token():
    x = torch.arange(6.0).view(1, 3, 2)
    shifted, last = token_shift(x)
    assert shifted.tolist() == [[[0, 0], [0, 1], [2, 3]]] and last.tolist() == [[4, 5]]
    assert token_shift(x[:, :1], last)[0].tolist() == [[[4, 5]]]


@pytest.mark.parametrize("frequency", [None, torch.tensor([0.3, 0.01, 2.0])], ids=["default", "given"])
@pytest.mark.parametrize("head", [6, 40])
def test_rotary_of_a_text_is_its_formula_with_its_gradients(head, frequency, monkeypatch):
    """Compiled and in PyTorch, of a part of wider rows, whatever the number of threads; the turn may be differentiated twice."""
    rows = torch.randn(2, 300, 3 * head + 5, dtype=torch.float64, requires_grad=True)
    if frequency is not None and head != 6:
        frequency = torch.linspace(0.1, 2, head // 2)
    answers, before = [], torch.get_num_threads()
    for threads in (1, 2, None):
        if threads is None:
            monkeypatch.setattr("models.ops.dense.rotary.turned", lambda *_: None)
        torch.set_num_threads(threads or before)
        y = rotary(split_heads(rows[..., 5:], 3), 123_456, frequency, 3)
        (slope,) = torch.autograd.grad(y.sin().sum(), rows, create_graph=True)
        answers.append([y, slope, *torch.autograd.grad(slope.square().sum(), rows)])
    torch.set_num_threads(before)
    assert all(map(torch.equal, *answers[:2]))
    torch.testing.assert_close(answers[0], answers[2], rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("head", [6, 16, 50])
def test_rotary_has_pytorchs_digits_forward_and_back(head, kind, monkeypatch):
    """A product and a sum in one instruction would give others, and every training with rotary positions would be another."""
    x, slope = torch.randn(2, 37, 3, head, dtype=kind, requires_grad=True), torch.randn(2, 37, 3, head, dtype=kind)

    def turned():
        y = rotary(x, 5)
        return y.detach(), *torch.autograd.grad(y, x, slope)

    compiled = turned()
    monkeypatch.setattr("models.ops.dense.rotary.turned", lambda *_: None)
    assert all(map(torch.equal, compiled, turned()))
