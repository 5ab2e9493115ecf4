"""SiLU of the short convolution in heads of unit length, compiled for training: what its layers make one after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.layers import ShortConvolution, convolved_heads, convolved_parts
from models.ops.native_build import compiler
from models.ops.providers import probing, watch
from models.ops.short_convolution import activated

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
# Widths of the parts, heads, parts of unit length.
PARTS = [([32, 32, 64], 4, 2), ([12, 12, 12], 4, 2), ([40], 2, 1), ([70, 3, 3], 1, 0), ([520, 520], 2, 2)]
KINDS = [(torch.float64, 1e-12), (torch.float32, 3e-6)]


@pytest.fixture(autouse=True)
def _narrow_ones_too(monkeypatch):
    monkeypatch.setattr(activated, "LEAST", 1)
    monkeypatch.setattr(activated, "LEAST_IN_HEADS", 1)


def answers(
    layer: ShortConvolution, x: Tensor, state: Tensor, widths: list[int], heads: int, unit: int
) -> list[Tensor]:
    """Parts, last inputs, and the gradients of x, the state and the weights, of a loss that hangs on all of them."""
    leaves = [x.clone().requires_grad_(), state.clone().requires_grad_()]
    layer.zero_grad()
    if unit:
        parts, last = convolved_heads(layer, *leaves, widths, heads, unit, 0.3)
    else:
        parts, last = convolved_parts(layer, *leaves, widths)
    torch.manual_seed(1)
    sum((y * torch.randn_like(y)).sum() for y in (*parts, last)).backward()
    return [*parts, last, *(one.grad for one in leaves), *(one.grad.clone() for one in layer.parameters())]


@pytest.mark.parametrize(("kind", "bound"), KINDS)
@pytest.mark.parametrize(("widths", "heads", "unit"), PARTS)
@pytest.mark.parametrize(("kernel", "bias"), [(4, False), (2, True), (1, True)])
@pytest.mark.parametrize("time", [1, 2, 5, 16, 17, 33])
def test_parts_and_gradients_are_those_of_the_layers_one_after_another(
    kind, bound, widths, heads, unit, kernel, bias, time
):
    torch.manual_seed(time)
    free, plain = (ShortConvolution(sum(widths), kernel, bias, name).to(kind) for name in ("auto", "chunked"))
    plain.load_state_dict(free.state_dict())
    x, state = (torch.randn(2, many, sum(widths), dtype=kind) for many in (time, kernel - 1))
    with watch() as ran:
        found = answers(free, x, state, widths, heads, unit)
    assert ran == {"native"}
    for got, right in zip(found, answers(plain, x, state, widths, heads, unit), strict=True):
        assert (got - right).norm() <= bound * right.norm()


def test_threads_change_no_digit():
    torch.manual_seed(0)
    layer, x, state, before = (
        ShortConvolution(640),
        torch.randn(3, 50, 640),
        torch.randn(3, 3, 640),
        torch.get_num_threads(),
    )
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(answers(layer, x, state, [256, 256, 128], 4, 2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for again in found[1:] for one, other in zip(found[0], again, strict=True))


def test_a_text_in_pieces_is_the_whole():
    torch.manual_seed(0)
    layer, x = ShortConvolution(24).double(), torch.randn(2, 37, 24, dtype=torch.float64, requires_grad=True)
    whole, last = convolved_heads(layer, x, None, [8, 8, 8], 2, 2)
    state, pieces = None, []
    for piece in x.split(5, 1):
        parts, state = convolved_heads(layer, piece, state, [8, 8, 8], 2, 2)
        pieces.append(parts)
    for part, cut in zip(whole, zip(*pieces, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(cut, 1), part, rtol=1e-13, atol=1e-13)
    assert torch.equal(state, last)


@pytest.mark.parametrize(
    "what", ["half", "autocast", "a provider of PyTorch", "probing", "few channels", "no gradient"]
)
def test_what_is_not_covered_goes_on_with_torch(what, monkeypatch):
    layer, x = (
        ShortConvolution(24, provider="chunked" if what.startswith("a provider") else "auto"),
        torch.randn(2, 5, 24),
    )
    heads = activated.Heads((8, 8, 8), 4, 2)
    if what == "few channels":
        monkeypatch.setattr(activated, "LEAST_IN_HEADS", 25)
    if what == "half":
        layer, x = layer.bfloat16(), x.bfloat16()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=what == "autocast"),
        torch.set_grad_enabled(what != "no gradient"),
    ):
        run = activated.activated if what == "no gradient" else lambda *_: layer.activated(x, None, heads)
        if what == "probing":
            with probing():
                assert run(x, layer.weight, None, None, heads) is None
        else:
            assert run(x, layer.weight, None, None, heads) is None
        parts, _ = convolved_heads(layer, x, None, [8, 8, 8], 2, 2)
    assert [tuple(part.shape) for part in parts] == [(2, 5, 2, 4)] * 3
