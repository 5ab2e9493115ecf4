"""B'MOJO against its equations token by token, in pieces; which tokens it stores, and what it is without a table."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from baselines.segment_recurrent.bmojo import PLACES, BMojo
from models.layers import rotary, split_heads
from models.ops.softmax_attention.recurrence import recurrence
from tests.support.references import apart, in_pieces, shaken

TIME = 29


def make(**settings) -> BMojo:
    torch.manual_seed(0)
    return shaken(BMojo(12, 2, **{"window": 4, "eidetic": 3, "states": 3, **settings}))


def text(time: int = TIME) -> torch.Tensor:
    return torch.randn(2, time, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("window", "eidetic", "inner"), [(4, 3, None), (5, 0, None), (1, 2, 8), (3, 7, None), (64, 3, None)], ids=str
)
def test_layer_is_its_equations(window, eidetic, inner):
    layer, x = make(window=window, eidetic=eidetic, inner=inner), text()
    for sizes in ([TIME], [5, 1, 3], [window]):
        forward, backward = apart(layer, x, sizes)
        assert forward < 1e-12 and backward < 1e-10
    assert (in_pieces(layer, x, [1])[0] - layer(x)[0]).norm() < 1e-12 * layer(x)[0].norm()


def test_fast_form_holds_in_float32():
    layer, x = make(), text()
    right, _ = BMojo.reference(layer, x)
    assert (layer.float()(x.float())[0].double() - right).norm() < 1e-5 * right.norm()


def test_table_holds_the_tokens_of_the_largest_errors():
    """The table that the next token sees: of all tokens before the block before its own."""
    layer, x = make(), text()
    z, known = layer.ssm(x)[0], (TIME // 4 - 1) * 4
    means = [z[:, max(0, t - 4) : t].mean(1) if t else torch.zeros_like(z[:, 0]) for t in range(known)]
    error = (z[:, :known] - torch.stack(means, 1)).norm(dim=-1) / z[:, :known].norm(dim=-1)
    keys, values, ranks = layer(x)[1][4]
    places = PLACES - 1 - ranks % PLACES
    assert torch.equal(places, error.topk(3).indices)
    picked = x.gather(1, places[..., None].expand(-1, -1, 12))
    torch.testing.assert_close(values.flatten(2), layer.value(picked))
    everywhere = rotary(split_heads(layer.key(x), 2), 0).flatten(2)
    torch.testing.assert_close(keys.flatten(2), everywhere.gather(1, places[..., None].expand(-1, -1, 12)))


def test_of_equal_errors_the_earlier_is_stored_and_gradients_reach_it():
    """A silent SSM foretells nothing and errs nowhere: the first tokens stay, beside the window."""
    layer, x = make(eidetic=2), text().requires_grad_()
    torch.nn.init.zeros_(layer.ssm.out.weight)
    (gradient,) = torch.autograd.grad(layer(x)[0][:, 21].sum(), x)
    heard = gradient.abs().sum((0, 2)) > 0
    assert heard.nonzero().flatten().tolist() == [0, 1, 18, 19, 20, 21]


def test_without_fading_and_stored_tokens_it_is_a_window():
    """Values of what the SSM made are zero where it is silent, and its keys too: each fading token adds 1 to the denominator."""
    layer, x = make(eidetic=0), text()
    torch.nn.init.zeros_(layer.ssm.out.weight)
    q, k, v = (split_heads(part(x), 2) for part in (layer.query, layer.key, layer.value))
    q, k = rotary(q, 0), rotary(k, 0)
    plain = recurrence(q, k, v, window=4)
    sums = torch.stack(
        [(q[:, t, None] * k[:, max(0, t - 3) : t + 1]).sum(-1).div(6**0.5).exp().sum(1) for t in range(TIME)], 1
    )
    faded = (torch.arange(TIME) - 3).clamp(0, 4)[:, None]
    torch.testing.assert_close(layer(x)[0], layer.out((plain * (sums / (sums + faded))[..., None]).flatten(2)))


def test_projections_start_as_the_reference_transformers():
    torch.manual_seed(0)
    layer = BMojo(64, 4)
    for name, expected in (("query", 0.125), ("key", 0.125), ("value", 0.125), ("out", 0.0625)):
        assert getattr(layer, name).weight.std().item() == pytest.approx(expected, rel=0.1), name
    assert (layer.ssm.inner, layer.ssm.states) == (64, 16)


@pytest.mark.parametrize("settings", [{"window": 0}, {"eidetic": -1}, {"states": 0}, {"inner": 9}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="B'MOJO needs"):
        make(**settings)
