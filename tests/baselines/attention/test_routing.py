"""Routing attention: its centroids and when they move, the layer by its equations, and what cannot be built."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.attention.routing import Routing
from models.layers import rotary


def layer(**settings) -> Routing:
    torch.manual_seed(0)
    return Routing(16, 2, **{"clusters": 3, "window": 4} | settings).double()


def text(time: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, time, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(time))


def by_the_equations(model: Routing, x: Tensor) -> Tensor:
    """One routed and one local head, token by token."""
    n = F.layer_norm(model.route(x), (8,))
    cluster = (n[..., None, :] @ model.clusters.centroids[0].T).squeeze(-2).argmax(-1)
    turned, routed = rotary(n[:, :, None], 0)[:, :, 0], model.value(x)
    q, k, v = model.local(x).chunk(3, -1)
    q, k = (rotary(part[:, :, None], 0)[:, :, 0] for part in (q, k))
    rows = []
    for row in range(len(x)):
        ys = []
        for t in range(x.shape[1]):
            own = [s for s in range(t + 1) if cluster[row, s] == cluster[row, t]][-model.window :]
            y = (turned[row, own] @ turned[row, t]).softmax(0) @ routed[row, own]
            near = list(range(max(0, t + 1 - model.window), t + 1))
            z = (k[row, near] @ q[row, t] / math.sqrt(8)).softmax(0) @ v[row, near]
            ys.append(model.out(torch.cat([z, y])))
        rows.append(torch.stack(ys))
    return torch.stack(rows)


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 9)], ids=["whole", "pieces"])
def test_layer_is_its_equations_with_all_gradients(cuts):
    model, x = layer(), text(21).requires_grad_()
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = model(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(model, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *model.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(*grads, strict=True))


def test_centroids_move_behind_a_backward_pass_alone():
    model, x = layer(decay=0.9), text(30)
    before = model.clusters.centroids.clone()
    n = F.normalize(F.layer_norm(model.route(x), (8,)), dim=-1).detach()
    own = F.one_hot((n @ before[0].T).argmax(-1), 3).double()
    members = torch.einsum("btd,btk->kd", n, own)
    model.eval()(x)
    with torch.no_grad():
        model.train()(x)
    y, _ = model(x)
    torch.autograd.grad(model(x[:, :0])[0].sum() + y.sum(), model.value.weight, retain_graph=True)
    assert torch.equal(model.clusters.centroids, before)
    y.sum().backward()
    moved = F.normalize(torch.where(members.any(-1, keepdim=True), 0.9 * before[0] + 0.1 * members, before[0]), dim=-1)
    torch.testing.assert_close(model.clusters.centroids[0], moved, rtol=1e-12, atol=1e-12)
    assert not model.clusters.pending.any()


def test_a_cluster_that_nobody_chose_stays():
    model = layer(decay=0.0)
    with torch.no_grad():
        model.clusters.centroids[0, 1] = -10 * model.clusters.centroids[0, 0]
        model.clusters.centroids[0, 2] = 10 * model.clusters.centroids[0, 0]
    kept = model.clusters.sums.clone()
    x = text(1, rows=1)
    chosen = (F.layer_norm(model.route(x), (8,)) @ model.clusters.centroids[0].T).argmax().item()
    model(x)[0].sum().backward()
    others = [c for c in range(3) if c != chosen]
    torch.testing.assert_close(model.clusters.centroids[0, others], kept[0, others], rtol=1e-6, atol=1e-6)
    assert not torch.equal(model.clusters.sums[0, chosen], kept[0, chosen])


def test_a_copy_moves_its_own_centroids():
    model, x = layer(), text(30)
    model(x)[0].sum().backward()
    twin = copy.deepcopy(model)
    before = model.clusters.centroids.clone()
    twin(x)[0].sum().backward()
    assert torch.equal(model.clusters.centroids, before)
    assert not torch.equal(twin.clusters.centroids, before)


def test_weights_and_centroids_begin_as_said():
    torch.manual_seed(0)
    model = Routing(256, 4, clusters=64)
    for part, spread in ((model.local, 1), (model.route, 1), (model.value, 1), (model.out, 0.5)):
        assert part.weight.std().item() == pytest.approx(spread / 16, rel=0.03)
    assert torch.allclose(model.clusters.centroids.norm(dim=-1), torch.ones(2, 64))
    assert model.clusters.centroids.mean(-1).abs().max() < 1e-6


@torch.no_grad()
def test_balanced_gives_every_cluster_the_closest_of_the_prefix():
    model, x = layer(select="balanced"), text(25)
    whole, _ = model(x)
    state, ys = None, []
    for piece in x.split(6, 1):
        y, state = model(piece, state)
        ys.append(y)
    assert torch.allclose(torch.cat(ys, 1), whole, atol=1e-12)
    assert not torch.allclose(whole, layer()(x)[0])


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="Unknown select 'top'; choose nearest or balanced"):
        Routing(32, 4, select="top")
    with pytest.raises(ValueError, match="1 <= routed <= 4, not 5"):
        Routing(32, 4, routed=5)
    with pytest.raises(ValueError, match="clusters >= 1, window >= 1 and decay"):
        Routing(32, 4, clusters=0)
