"""minGRU and minLSTM: their equations token by token, and gates at their ends."""

from __future__ import annotations

import pytest
import torch

from baselines.second_generation.min_rnns import MinGRU, MinLSTM, positive


@pytest.mark.parametrize("kernel", [0, 4])
@pytest.mark.parametrize("cls", [MinGRU, MinLSTM])
def test_layer_is_its_equations_token_by_token(cls, kernel):
    torch.manual_seed(0)
    layer, x = cls(8, 2, kernel=kernel).double(), torch.randn(2, 21, 8, dtype=torch.float64)
    whole, (*_, last) = layer(x)
    seen = layer.convolution(x)[0] if kernel else x
    h = torch.zeros(2, 12, dtype=torch.float64)
    for t in range(21):
        *gates, u = layer.project(seen[:, t]).chunk(layer.parts, -1)
        candidate = torch.where(u >= 0, u + 0.5, u.sigmoid())
        if cls is MinGRU:
            z = gates[0].sigmoid()
            h = (1 - z) * h + z * candidate
        else:
            f, i = (gate.sigmoid() for gate in gates)
            h = f / (f + i) * h + i / (f + i) * candidate
        right = layer.out(h)
        assert (whole[:, t] - right).norm() < 1e-13 * right.norm()
    assert (last - h).norm() < 1e-13 * h.norm()


def test_candidates_are_positive_and_continuous():
    u = torch.linspace(-50, 50, 1001)
    assert (positive(u) > 0).all() and positive(torch.tensor([-1e-7, 1e-7])).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_shares_sum_to_one_and_small_ones_keep_their_digits(size):
    gates = torch.tensor([-size, size])
    for cls in (MinGRU, MinLSTM):
        keep, write = cls.shares(*(gates, gates.flip(0))[: cls.parts - 1])
        assert (keep + write).tolist() == [1, 1] and keep.isfinite().all()
        if size == 30:
            assert min(keep.min(), write.min()).item() > 0


def test_negative_kernel_is_refused():
    with pytest.raises(ValueError, match="need kernel >= 0"):
        MinGRU(8, 2, kernel=-1)
