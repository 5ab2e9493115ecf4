"""R-Transformer's RNN against torch's own GRU on unfolded windows, its attention without positions, and its states."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from baselines.segment_recurrent.r_transformer import LocalGRU, RTransformer
from models.shell.model import Size

SIZE = Size(32, 16, 2, 2)


def _unfolded(layer: LocalGRU, x: torch.Tensor) -> torch.Tensor:
    """torch's GRU run anew over the window of every token, with zeros before the text."""
    gru = nn.GRU(x.shape[2], x.shape[2], batch_first=True, dtype=x.dtype)
    named = {"weight_ih_l0": layer.project.weight, "bias_ih_l0": layer.project.bias}
    named |= {"weight_hh_l0": layer.recurrent.weight, "bias_hh_l0": layer.recurrent.bias}
    padded = torch.cat([x.new_zeros(len(x), layer.inputs - 1, x.shape[2]), x], 1)
    windows = padded.unfold(1, layer.inputs, 1).transpose(2, 3).flatten(0, 1)
    last = torch.func.functional_call(gru, named, (windows,))[1][0]
    return last.view_as(x)


@pytest.mark.parametrize(("inputs", "time"), [(1, 5), (3, 1), (7, 20)])
def test_the_local_rnn_is_torchs_gru_over_every_window(inputs, time):
    torch.manual_seed(0)
    layer, x = LocalGRU(8, inputs).double(), torch.randn(2, time, 8, dtype=torch.double, requires_grad=True)
    found = [layer(x, None)[0], _unfolded(layer, x)]
    assert torch.allclose(*found, rtol=0, atol=1e-14)
    weights = [x, *layer.parameters()]
    one, other = (torch.autograd.grad(y.square().sum(), weights, allow_unused=True) for y in found)
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-13)


def test_weights_begin_as_torchs_gru_begins():
    torch.manual_seed(0)
    layer = LocalGRU(64, 7)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= 1 / 8 and parameter.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)


def test_the_order_of_tokens_is_heard_through_the_rnn_alone():
    """Without the RNN the last token of one level sees a set: attention has no positions."""
    torch.manual_seed(0)
    model = RTransformer(Size(32, 16, 1, 2), feed=24, inputs=3).double()
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9]])
    swapped = tokens[:, [1, 0, 2, 3, 4, 5, 6, 7, 8]]
    last = [model(t)[0][0, -1] for t in (tokens, swapped)]
    assert not torch.allclose(*last)
    for block in model.blocks[::2]:
        nn.init.zeros_(block.mixer.project.weight)
        nn.init.zeros_(block.mixer.project.bias)
        nn.init.zeros_(block.mixer.recurrent.bias)
    assert torch.allclose(*(model(t)[0][0, -1] for t in (tokens, swapped)), atol=1e-12)


def test_a_window_makes_its_state_one_of_a_fixed_size():
    torch.manual_seed(0)
    model, tokens = RTransformer(SIZE, feed=24, window=5), torch.randint(32, (1, 40))
    sizes = []
    for length in (12, 40):
        _, state = model(tokens[:, :length])
        sizes.append(
            sum(part.numel() for past, (k, v) in zip(state[::2], state[1::2], strict=True) for part in (past, k, v))
        )
    assert model.fixed_state and sizes[0] == sizes[1]
    assert not RTransformer(SIZE, feed=24).fixed_state


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="inputs >= 1"):
        RTransformer(SIZE, feed=24, inputs=0)
