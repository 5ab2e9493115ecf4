"""mLSTM: the memory against its equations without a running maximum, gates of any size, and how both layers begin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.second_generation.mlstm import MLSTM, XLSTM7B, _in_blocks, exponential_memory


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(time: int, scale: float = 1.0) -> list[Tensor]:
    """q, k, v and the sums of input and forget gate."""
    text = [drawn(i, 2, time, 3, 4) for i in range(3)]
    return [*text, *(scale * drawn(i, 2, time, 3) for i in (3, 4))]


def plain(q: Tensor, k: Tensor, v: Tensor, write: Tensor, forget: Tensor) -> Tensor:
    """The paper's equations (19) to (27) as they stand, C and n unscaled; the code's 1e-6 is e^m as large there."""
    C, n, m, ys = 0.0, 0.0, torch.tensor(-math.inf), []
    for t in range(q.shape[1]):
        f, i = forget[:, t].sigmoid()[..., None], write[:, t].exp()[..., None]
        key = k[:, t] / k.shape[-1] ** 0.5
        C = f[..., None] * C + i[..., None] * key[..., None] * v[:, t, :, None]
        n = f * n + i * key
        top, bottom = (C * q[:, t, ..., None]).sum(-2), (n * q[:, t]).sum(-1, keepdim=True)
        m = torch.maximum(F.logsigmoid(forget[:, t]) + m, write[:, t]).detach()
        ys.append(top / (bottom.abs().clamp_min(1) + 1e-6 * m.exp()[..., None]))
    return torch.stack(ys, 1)


@pytest.mark.parametrize("provider", ["recurrence", "chunked"])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_memory_is_its_equations(scale, provider):
    leaves = [x.requires_grad_() for x in given(70, scale)]
    right = plain(*leaves)
    y, _ = exponential_memory(*leaves, None, provider)
    assert (y - right).norm() <= 1e-9 * right.norm()
    way = drawn(9, *y.shape)
    for got, wanted in zip(*(torch.autograd.grad((x * way).sum(), leaves) for x in (y, right)), strict=True):
        assert (got - wanted).norm() <= 1e-9 * wanted.norm()


def test_memory_in_pieces_is_the_memory():
    inputs = given(70)
    whole, last = exponential_memory(*inputs, None, "chunked")
    state, ys = None, []
    for piece in zip(*(x.split(11, 1) for x in inputs), strict=True):
        y, state = exponential_memory(*piece, state, "chunked")
        ys.append(y)
    assert (torch.cat(ys, 1) - whole).norm() <= 1e-9 * whole.norm()
    for got, wanted in zip(state, last, strict=True):
        assert (got - wanted).norm() <= 1e-9 * wanted.norm()


@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_gates_of_any_size_stay_finite(scale):
    leaves = [x.float().requires_grad_() for x in given(70, scale)]
    y, state = exponential_memory(*leaves, None, "chunked")
    y.square().sum().backward()
    assert all(x.isfinite().all() for x in (y, *state, *(leaf.grad for leaf in leaves)))
    exact, _ = exponential_memory(*(x.detach().double() for x in leaves), None, "recurrence")
    assert (y - exact).norm() <= 1e-3 * exact.norm()


def begun_gates(gates: torch.nn.Linear) -> Tensor:
    assert not gates.weight.any()
    write, forget = gates.bias.detach().chunk(2)
    torch.testing.assert_close(forget, torch.tensor([3.0, 4.0, 5.0, 6.0]))
    return write


def test_block_begins_as_its_authors_code():
    torch.manual_seed(0)
    block = MLSTM(64, 4, depth=5)
    for weight in (block.up.weight, block.queries_keys, block.values):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / 320), rel=0.05)
    assert block.down.weight.std().item() == pytest.approx(2 / (5 * 8), rel=0.05)
    assert block.queries_keys.shape == (2, 32, 4, 4) and torch.equal(block.skip, torch.ones(128))
    assert 0 < begun_gates(block.gates).abs().max() < 0.5


def test_layer_of_7b_begins_as_its_authors_code():
    torch.manual_seed(0)
    layer = XLSTM7B(64, 4, depth=5)
    assert layer.project.weight.std().item() == pytest.approx(math.sqrt(2 / 320), rel=0.05)
    assert layer.out.weight.std().item() == pytest.approx(2 / (5 * 8), rel=0.05)
    assert (begun_gates(layer.gates) == -10).all()


def test_capped_gates_stay_below_their_cap():
    torch.manual_seed(0)
    layer = XLSTM7B(16, 2)
    with torch.no_grad():
        layer.gates.weight.normal_(std=100.0)
    _, (_, m) = layer(torch.randn(2, 40, 16))
    assert m.max() <= 15


def test_widths_that_heads_cannot_share_are_refused():
    with pytest.raises(ValueError, match="mLSTM's inner width 10 must be a multiple of its 4 heads"):
        MLSTM(16, 4, inner=10)
    with pytest.raises(ValueError, match="inner width 12 must be a multiple of twice its 4 heads"):
        XLSTM7B(16, 4, inner=12)


def test_blocks_of_queries_are_block_diagonal():
    block = MLSTM(8, 2).double()
    x = drawn(1, 1, 3, 16)
    dense = torch.block_diag(*block.queries_keys[0])
    torch.testing.assert_close(_in_blocks(x, block.queries_keys)[0], F.linear(x, dense))
    assert MLSTM(9, 3, inner=18).values.shape == (1, 9, 2, 2)
