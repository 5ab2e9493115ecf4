"""LSTM, GRU, JANET and sLSTM: how they begin, what their settings change, and what each remembers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from baselines.gated_ancestors.gru import GRU
from baselines.gated_ancestors.janet import Janet
from baselines.gated_ancestors.lstm import LSTM
from baselines.gated_ancestors.slstm import SLSTM

WIDTH, HEADS, UNITS = 16, 2, 64


def spread(weight: torch.Tensor) -> float:
    return weight.std().item()


def test_lstm_begins_as_torchs_with_forget_biases_of_one():
    torch.manual_seed(0)
    layer = LSTM(WIDTH, HEADS, UNITS)
    for weight in (layer.project.weight, layer.recurrent):
        assert weight.abs().max() <= UNITS**-0.5
        assert spread(weight) == pytest.approx((3 * UNITS) ** -0.5, rel=0.03)
    write, forget, *others = layer.project.bias.chunk(4)
    assert torch.equal(forget, torch.ones(UNITS))
    assert not any(part.any() for part in (write, *others))
    assert layer.peepholes is None


def test_chrono_lstm_forgets_over_all_times_and_writes_what_it_forgets():
    write, forget, *others = LSTM(WIDTH, HEADS, UNITS, longest=50).project.bias.chunk(4)
    assert torch.equal(write, -forget) and not any(part.any() for part in others)
    assert forget.exp().min() >= 1 and forget.exp().max() <= 49


def test_peepholes_see_the_cell_and_learn():
    torch.manual_seed(0)
    layer = LSTM(WIDTH, HEADS, peepholes=True)
    x = torch.randn(2, 9, WIDTH)
    y, _ = layer(x)
    plain = LSTM(WIDTH, HEADS)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if name != "peepholes"})
    torch.testing.assert_close(plain(x)[0], y)
    y.square().sum().backward()
    assert (layer.peepholes.grad.abs().amax(1) > 0).all()


def test_gru_begins_as_its_paper_says():
    torch.manual_seed(0)
    layer = GRU(WIDTH, HEADS, UNITS)
    for gate in layer.recurrent.chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(UNITS), atol=1e-5, rtol=0)
    assert spread(layer.project.weight) == pytest.approx(0.01, rel=0.03)
    assert not layer.project.bias.any() and not layer.candidate_bias.any()


def test_two_places_of_the_reset_gate_are_two_functions():
    torch.manual_seed(0)
    behind, before = (GRU(WIDTH, HEADS, reset=reset) for reset in ("behind", "before"))
    before.load_state_dict({name: value for name, value in behind.state_dict().items() if name != "candidate_bias"})
    x = 20 * torch.randn(2, 9, WIDTH)
    one, other = (layer(x)[0] for layer in (behind, before))
    torch.testing.assert_close(one[:, 0], other[:, 0])  # nothing is there to be reset
    assert (one[:, 4] - other[:, 4]).norm() > 1e-3 * one[:, 4].norm()
    with pytest.raises(ValueError, match="'behind' the recurrent product or 'before' it, not 'after'"):
        GRU(WIDTH, HEADS, reset="after")


def test_janet_begins_as_its_authors_code():
    torch.manual_seed(0)
    layer = Janet(WIDTH, HEADS, UNITS, longest=100)
    assert spread(layer.project.weight) == pytest.approx((2 / (WIDTH + 2 * UNITS)) ** 0.5, rel=0.03)
    assert spread(layer.recurrent) == pytest.approx((2 / (3 * UNITS)) ** 0.5, rel=0.03)
    forget, candidate = layer.project.bias.chunk(2)
    assert forget.exp().min() >= 1 and forget.exp().max() <= 99 and not candidate.any()
    assert torch.equal(Janet(WIDTH, HEADS, longest=None).project.bias[:WIDTH], torch.ones(WIDTH))


@pytest.mark.parametrize("layer", [0, 1, 4])
def test_slstm_begins_as_its_authors_code(layer):
    torch.manual_seed(0)
    block = SLSTM(64, HEADS, index=layer, depth=5)
    write, forget, candidate, output = block.bias
    for unit in (0, 7, 31):
        assert forget[1, unit].item() == pytest.approx(5 - 12 * (unit / 31) ** (0.3 + 1.3 * layer / 4))
    assert not any(part.any() for part in (write, candidate, output, block.recurrent))
    assert spread(block.inputs) == pytest.approx(math.sqrt(2 / 320), rel=0.05)
    assert spread(block.down.weight) == pytest.approx(2 / (5 * 8), rel=0.05)
    assert block.down.in_features == 88


def test_slstm_block_is_its_equations():
    """Token by token, from the paper's sums without a running maximum."""
    torch.manual_seed(0)
    block = SLSTM(8, HEADS).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    n = F.layer_norm(x, (8,), block.norm.weight)
    padded = F.pad(n, (0, 0, 3, 0))
    weight = block.convolution.weight[:, 0]
    heard = [sum(weight[:, j] * padded[:, t + j] for j in range(4)) + block.convolution.bias for t in range(7)]
    h, C, N = (torch.zeros(2, HEADS, 4, dtype=torch.float64) for _ in range(3))
    recurrent, bias = block.recurrent.unflatten(1, (4, 4)), block.bias
    for t in range(7):
        texts = (F.silu(heard[t]), n[:, t])
        sums = []
        for gate in range(4):
            text, rows = (
                texts[gate // 2].unflatten(1, (HEADS, 4)),
                block.inputs[gate // 2].unflatten(1, (2, 4))[:, gate % 2],
            )
            own = torch.einsum("bhj,hij->bhi", text, rows) + torch.einsum("bhj,hij->bhi", h, recurrent[:, gate])
            sums.append(own + bias[gate])
        i, f, z, o = sums[0].exp(), sums[1].sigmoid(), sums[2].tanh(), sums[3].sigmoid()
        C, N = f * C + i * z, f * N + i
        h = o * C / N
        centred = h - h.mean(-1, keepdim=True)
        y = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(1) * block.head_norm.weight
        gate, up = (block.gate_up.weight @ F.layer_norm(x[:, t] + y, (8,), block.feed_norm.weight).T).T.chunk(2, -1)
        expected = y + (F.gelu(gate) * up) @ block.down.weight.T
        torch.testing.assert_close(block(x)[0][:, t], expected)


def test_slstm_of_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="width 10 must be a multiple of its 4 heads"):
        SLSTM(10, 4)
