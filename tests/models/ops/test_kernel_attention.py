"""Kernel attention against a double loop over pairs of tokens, its chunked forms against its recurrences, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.ops.kernel_attention import block_attention, kernel_attention, window_and_kernel
from models.ops.kernel_attention.features import KERNELS, count, expanded, features, softmax_features

BATCH, HEADS, VALUES, BLOCK, WINDOW, FEATURES = 2, 3, 4, 8, 7, 6
CUTS = [[1], [7], [64], [150], [0, 37, 0, 1, 90], [63, 65], [1, 1, 1]]
FORMS = ("recurrence", "chunked")


def drawn(time: int, *widths: int) -> list[Tensor]:
    torch.manual_seed(time)
    return [torch.randn(BATCH, time, HEADS, width, dtype=torch.float64, requires_grad=True) for width in widths]


def in_pieces(operation, inputs: list[Tensor], cuts: list[int], **settings):
    """Outputs and the last state of a text read in pieces; no state passed in may change."""
    ys, state, start = [], None, 0
    for length in cuts:
        kept = None if state is None else [x.clone() if isinstance(x, Tensor) else x for x in state]
        y, after = operation(*(x[:, start : start + length] for x in inputs), state=state, **settings)
        assert state is None or all(
            torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(state, kept, strict=True)
        )
        ys.append(y)
        state, start = after, start + length
    return torch.cat(ys, 1), state


def answers(operation, inputs: list[Tensor], cuts: list[int], **settings) -> list[Tensor]:
    """Outputs, last state, and every gradient of a sum over both."""
    y, state = in_pieces(operation, inputs, cuts, **settings)
    outputs = [y, *(x for x in state if isinstance(x, Tensor))]
    loss = sum((x * torch.arange(x.numel(), dtype=x.dtype).sin().view_as(x)).sum() for x in outputs)
    return [x.detach() for x in outputs] + list(torch.autograd.grad(loss, inputs))


def close(got: list[Tensor], right: list[Tensor], bound: float = 1e-9) -> None:
    for a, b in zip(got, right, strict=True):
        assert a.shape == b.shape
        assert (a - b).norm() <= bound * b.norm() + 1e-12


def dots(a: Tensor, b: Tensor) -> Tensor:
    """a_t . b_s for all pairs, [b, h, t, s]."""
    return torch.einsum("bthf,bshf->bhts", a, b)


def averaged(weights: Tensor, v: Tensor, plus: float) -> Tensor:
    """sum_{s <= t} w_ts v_s / (sum w_ts + plus)."""
    weights = weights.tril()
    return torch.einsum("bhts,bshv->bthv", weights, v) / (weights.sum(-1).transpose(1, 2)[..., None] + plus)


WEIGHTS = {
    "product": dots,
    "taylor": lambda q, k: 1 + dots(q, k) + dots(q, k) ** 2 / 2,
    "square": lambda q, k: dots(q, k) ** 2,
    "exponential": lambda q, k: dots(q.exp(), k.exp()),
}


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_attention_is_its_definition(kernel, cuts):
    q, k, v = drawn(sum(cuts), 5, 5, VALUES)
    plus = 0.0 if kernel == "exponential" else 2.0
    inside = [q.exp(), k.exp()] if kernel == "product" else [q, k]
    expected = averaged(WEIGHTS[kernel](*inside), v, plus).detach()
    leaves = [x.detach().requires_grad_() for x in (*inside, v)]
    right = answers(kernel_attention, leaves, [sum(cuts)], kernel=kernel, plus=plus, provider="recurrence")
    close(right[:1], [expected], 1e-12)
    close(answers(kernel_attention, leaves, cuts, kernel=kernel, plus=plus, provider="chunked"), right)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_without_the_quotient_it_is_the_sum(kernel, form):
    q, k, v = drawn(70, 4, 4, VALUES)
    y, _ = in_pieces(kernel_attention, [q, k, v], [33, 37], kernel=kernel, normalise=False, provider=form)
    expected = torch.einsum("bhts,bshv->bthv", WEIGHTS[kernel](q, k).tril(), v)
    close([y], [expected], 1e-12)


@pytest.mark.parametrize("width", [1, 2, 5, 8])
@pytest.mark.parametrize("kernel", ["taylor", "square"])
def test_features_hold_each_product_once(kernel, width):
    q, k = drawn(9, width, width)
    assert features(q, kernel).shape[-1] == count(width, kernel)
    close([dots(*(expanded(x.detach(), kernel) for x in (q, k)))], [WEIGHTS[kernel](q, k)], 1e-12)
    assert torch.autograd.gradcheck(lambda x: features(x, kernel), q[:1, :1, :1].detach().requires_grad_())


@pytest.mark.parametrize("form", FORMS)
def test_exponential_kernel_stays_exact_when_late_keys_are_large(form):
    """In float32, with keys that grow fortyfold late in the text: no underflow before, and earlier rows do not move."""
    q, k, v = (x.detach().float() for x in drawn(100, 16, 16, VALUES))
    settings = {"kernel": "exponential", "provider": form}
    before, _ = kernel_attention(q, k, v, **settings)
    k[:, 60:] *= 40
    after, _ = kernel_attention(q, k, v, **settings)
    assert after.isfinite().all() and torch.equal(after[:, :60], before[:, :60])
    exact = torch.logsumexp(q.double().transpose(1, 2)[:, :, :, None] + k.double().transpose(1, 2)[:, :, None], -1)
    hidden = torch.ones(100, 100, dtype=torch.bool).triu(1)
    expected = torch.einsum("bhts,bshv->bthv", exact.masked_fill(hidden, -torch.inf).softmax(-1), v.double())
    assert (after - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("cuts", [[1], [37], [16, 24], [0, 5, 3, 8, 1, 20], [1] * 19], ids=str)
def test_blocks_are_their_definition(cuts):
    inputs = drawn(sum(cuts), 5, 5, 4, 4, VALUES)
    q, k, sketch_q, sketch_k, v = inputs
    place = torch.arange(sum(cuts)) // BLOCK
    weights = torch.where(place[:, None] == place, dots(q, k) ** 4, dots(sketch_q, sketch_k) ** 2)
    right = answers(block_attention, inputs, [sum(cuts)], block=BLOCK, provider="recurrence")
    close(right[:1], [averaged(weights, v, 1.0)], 1e-12)
    close(answers(block_attention, inputs, cuts, block=BLOCK, provider="chunked"), right)


@pytest.mark.parametrize("cuts", [[1], [6], [37], [14, 24], [0, 5, 3, 8, 1, 20], [1] * 19], ids=str)
def test_window_and_the_rest_are_their_definition(cuts):
    inputs = drawn(sum(cuts), 4, 4, VALUES)
    q, k, v = inputs
    projection = torch.randn(FEATURES, 4, dtype=torch.float64)
    place = torch.arange(sum(cuts))
    estimated = dots(*(softmax_features(x, projection).exp() for x in (q, k)))
    weights = torch.where(place[:, None] - place < WINDOW, (dots(q, k) / 2).exp(), estimated)
    settings = {"projection": projection, "window": WINDOW}
    right = answers(window_and_kernel, inputs, [sum(cuts)], provider="recurrence", **settings)
    close(right[:1], [averaged(weights, v, 0.0)], 1e-12)
    close(answers(window_and_kernel, inputs, cuts, provider="chunked", **settings), right)


def test_softmax_features_are_their_formula_and_estimate_the_softmax_kernel():
    x = torch.randn(3, 4, dtype=torch.float64)
    y, projection = 0.5 * x.flip(0), torch.randn(400_000, 4, dtype=torch.float64)
    phi_x, phi_y = (softmax_features(z, projection).exp() for z in (x, y))
    scaled, w = x[0] / 4**0.25, projection[7]
    expected = torch.exp(w @ scaled - scaled @ scaled / 2) / math.sqrt(400_000)
    assert phi_x[0, 7].item() == pytest.approx(expected.item())
    assert torch.allclose((phi_x * phi_y).sum(-1), ((x * y).sum(-1) / 2).exp(), rtol=0.05)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_keeps_its_dtype_and_a_float32_state(form):
    q, k, v = (x.detach().bfloat16() for x in drawn(20, 4, 4, 4))
    sketches, projection = (q[..., :2], k[..., :2]), torch.randn(FEATURES, 4)
    calls = {
        "kernel": lambda *a: kernel_attention(a[0], a[1], a[2], kernel="taylor", provider=form),
        "block": lambda *a: block_attention(a[0], a[1], *(x.to(a[0]) for x in sketches), a[2], block=8, provider=form),
        "window": lambda *a: window_and_kernel(*a, projection=projection, window=5, provider=form),
    }
    for call in calls.values():
        with torch.autocast("cpu", torch.bfloat16):
            y, state = call(q, k, v)
        assert y.dtype == torch.bfloat16 and {x.dtype for x in state if isinstance(x, Tensor)} == {torch.float32}
        assert (y - call(q.float(), k.float(), v.float())[0]).norm() <= 1e-2 * y.norm()


@pytest.mark.parametrize("kernel", KERNELS)
def test_sums_are_means_that_do_not_grow_with_the_text(kernel):
    q, k, v = (x.detach() for x in drawn(300, 4, 4, 4))
    _, short = kernel_attention(q[:, :100], k[:, :100], v[:, :100], kernel=kernel)
    _, (mean, *_, tokens) = kernel_attention(q, k, v, kernel=kernel)
    assert tokens == 300
    assert mean.norm() < 2 * short[0].norm()


def test_what_cannot_be_computed_is_refused():
    q, k, v = (x.detach() for x in drawn(3, 2, 2, 2))
    with pytest.raises(ValueError, match="choose product, taylor, square, exponential"):
        kernel_attention(q, k, v, kernel="cube")
    with pytest.raises(ValueError, match="use plus=0"):
        kernel_attention(q, k, v, kernel="exponential", plus=1.0)
