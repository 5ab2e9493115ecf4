"""Norms, linear maps and SwiGLU of a few rows, compiled: the numbers of torch's, and where they leave the work to torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.layers import RMSNorm, SwiGLU, maps, rotary
from models.ops.dense.native import FEW, is_step
from models.ops.native_build import compiler
from models.ops.providers import probing, watch

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
LAYERS = {
    "norm": lambda width, inner, provider: RMSNorm(width, provider=provider),
    "norm without a gain": lambda width, inner, provider: RMSNorm(width, weight=False, eps=1e-3, provider=provider),
    "swiglu": SwiGLU,
}


def both(name: str, width: int, inner: int, kind: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """A layer that may be compiled and one that must not, with the same drawn weights."""
    torch.manual_seed(width)
    free, plain = (LAYERS[name](width, inner, provider).to(kind) for provider in ("auto", "chunked"))
    with torch.no_grad():
        for weight in free.parameters():
            weight.normal_(std=width**-0.5)
    plain.load_state_dict(free.state_dict())
    return free, plain


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("kind", "bound"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
@pytest.mark.parametrize(("width", "inner"), [(64, 24), (37, 19), (8, 16), (3, 1)])
@torch.no_grad()
def test_layers_of_a_few_rows_are_those_of_torch(name, kind, bound, width, inner):
    free, plain = both(name, width, inner, kind)
    for rows in (1, FEW):
        x = torch.randn(rows, 1, width, dtype=kind)
        with watch() as ran:
            y = free(x)
        assert ran == {"native"}
        torch.testing.assert_close(y, plain(x), rtol=bound, atol=bound)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "out"), [(64, 40), (37, 19), (3, 1), (700, 500)])
@torch.no_grad()
def test_maps_of_a_token_are_its_linear_layers(width, out, bias):
    torch.manual_seed(out)
    layers = nn.Linear(width, out, bias).double(), nn.Linear(width, 2 * out, bias).double()
    x = torch.randn(2, 1, 2 * width, dtype=torch.float64)[..., :width]
    for y, layer in zip(maps(x, *layers), layers, strict=True):
        torch.testing.assert_close(y, layer(x), rtol=1e-13, atol=1e-13)


@torch.no_grad()
def test_threads_change_no_digit_of_a_large_map():
    torch.manual_seed(0)
    layer, x, threads = nn.Linear(700, 501), torch.randn(1, 1, 700), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(maps(x, layer)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_gradients_many_rows_half_precision_and_plain_providers_stay_with_torch():
    x = torch.randn(1, 1, 8)
    assert not is_step(x)  # a gradient may be asked for
    with torch.no_grad():
        assert is_step(x) and is_step(x, "native") and is_step(x, "sdpa")
        assert not is_step(torch.randn(1, FEW + 1, 8)) and not is_step(x[:, :0])
        assert not is_step(x.bfloat16()) and not is_step(x, "chunked") and not is_step(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_step(x)


@torch.no_grad()
def test_who_listens_to_a_map_inside_hears_it():
    layer, x, heard = SwiGLU(8, 16), torch.randn(1, 1, 8), []
    silent = layer(x)
    layer.gate_up.register_forward_hook(lambda module, given, y: heard.append(y))
    torch.testing.assert_close(layer(x), silent)
    maps(x, layer.gate_up)
    assert len(heard) == 2


@pytest.mark.parametrize("shared", [False, True])
def test_rotary_positions_inside_probing_are_those_outside(shared):
    wide = torch.randn(2, 5, 3, 24, dtype=torch.float64, requires_grad=True)
    x = wide[..., 8:16] if shared else wide[..., :8].detach()
    outside = rotary(x, 3)
    with probing():
        assert torch.allclose(rotary(x, 3), outside, rtol=1e-14, atol=1e-14)
