"""Models that read whole segments at once: the numbers of one after the other, each weight's gradient asked for once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, build
from models.ops.providers import probing
from models.shell.diagonals import Diagonals
from models.shell.layer_maps import LayerMap
from models.shell.segments import SegmentModel

SEGMENT = 8
MODELS = ("armt", "feng", "memformer", "rmt")


def model(name: str, **settings) -> SegmentModel:
    torch.manual_seed(0)
    made = build(name, Size(32, 32, 3, 2), match=False, segment=SEGMENT, **settings).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def answers(made: SegmentModel, cuts: list[int]) -> list[torch.Tensor]:
    """Logits of a text in pieces, and all gradients."""
    tokens = torch.randint(32, (2, sum(cuts)), generator=torch.Generator().manual_seed(1))
    logits, state = [], None
    for piece in tokens.split(cuts, 1):
        found, state = made(piece, state)
        logits.append(found)
    logits = torch.cat(logits, 1)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return [logits.detach(), *torch.autograd.grad(loss, list(made.parameters()), allow_unused=True)]


@pytest.mark.parametrize("cuts", [[40], [43], [3, 40], [16, 21, 4], [1, 1, 33]], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_whole_segments_at_once_are_one_after_the_other(name, cuts, monkeypatch):
    made, asked = model(name), []
    several = type(made).several
    monkeypatch.setattr(
        type(made), "several", lambda self, x, state: asked.append(x.shape[1]) or several(self, x, state)
    )
    found = answers(made, cuts)
    assert asked and all(time % SEGMENT == 0 and time > SEGMENT for time in asked)
    monkeypatch.setattr(type(made), "at_once", lambda self, x: False)
    right = answers(made, cuts)
    for one, other in zip(found, right, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one - other).norm() <= 1e-11 * other.norm() + 1e-13


@pytest.mark.parametrize("name", MODELS)
def test_two_backward_passes_over_one_graph_give_the_same(name):
    made, tokens = model(name), torch.zeros(1, 3 * SEGMENT, dtype=torch.long)
    logits = made(tokens)[0]
    torch.autograd.grad(logits[:, SEGMENT].sum(), made.embedding.weight, retain_graph=True)
    first, second = (torch.autograd.grad(logits.sum(), made.norm.weight, retain_graph=True) for _ in range(2))
    feeds = [torch.autograd.grad(logits.sum(), made.blocks[0].feed.down.weight, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(first[0], second[0]) and torch.equal(*feeds) and feeds[0].any()


@pytest.mark.parametrize("name", MODELS)
def test_who_listens_or_cuts_gradients_gets_one_piece_after_the_other(name):
    made, x = model(name), torch.randn(1, 3 * SEGMENT, 32, dtype=torch.float64)
    assert made.at_once(x) and not made.at_once(x.float()) and not made.at_once(x.bfloat16())
    with torch.autocast("cpu"):
        assert not made.at_once(x)
    with probing():
        assert not made.at_once(x)
    heard = made.blocks[1].feed.register_forward_hook(lambda *given: None)
    assert not made.at_once(x)
    heard.remove()
    assert made.at_once(x) and not model(name, detach_every=2).at_once(x)


def test_a_provider_that_is_asked_for_computes():
    x = torch.randn(1, 3 * SEGMENT, 32, dtype=torch.float64)
    assert not model("rmt", provider="recurrence").at_once(x)


class Products(TorchDispatchMode):
    """Counts products whose result is as large as one weight of some layers."""

    def __init__(self, out: int, into: int):
        super().__init__()
        self.shape, self.count = (out, into), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "bmm") and tuple(found.shape[-2:]) in (self.shape, self.shape[::-1]):
            self.count += 1
        return found


@pytest.mark.parametrize("name", MODELS)
def test_a_weights_gradient_is_one_product_however_many_segments(name):
    made, counts = model(name), []
    weight = made.blocks[0].feed.gate_up.weight
    for segments in (3, 6):
        loss = made(torch.zeros(1, segments * SEGMENT, dtype=torch.long))[0].sum()
        with Products(*weight.shape) as products:
            torch.autograd.grad(loss, weight)
        counts.append(products.count)
    assert counts[0] == counts[1]


def test_steps_hold_every_pair_once_behind_those_that_it_waits_for():
    steps = Diagonals(3, 5)
    pairs = [(layer, steps.segment(step, layer)) for step in steps.all for layer in range(step.first, step.stop)]
    assert sorted(pairs) == [(layer, segment) for layer in range(3) for segment in range(5)]
    assert [pairs[place] for place in steps.order] == sorted(pairs)
    number = {steps.segment(step, n): step.number for step in steps.all for n in range(step.first, step.stop) if n == 1}
    assert len(steps.all) == 7 and sorted(number.values()) == list(number.values())
    begun = [step.stop - 1 for step in steps.all if step.begins]
    assert begun == [0, 1, 2]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_map_of_layers_is_each_layers_own(depth):
    steps, weight = Diagonals(depth, 3), torch.randn(depth, 5, 4, dtype=torch.float64, requires_grad=True)
    layers, plain, asked = LayerMap(weight, steps, 6), 0.0, 0.0
    for step in steps.all:
        x = torch.randn(step.stop - step.first, 2, 3, 4, dtype=torch.float64)
        way = torch.randn(5, dtype=torch.float64)
        asked = asked + (layers(x, step) @ way).sum()
        plain = plain + (torch.einsum("gbri,goi->gbro", x, weight[step.first : step.stop]) @ way).sum()
    torch.testing.assert_close(asked, plain)
    torch.testing.assert_close(*(torch.autograd.grad(total, weight)[0] for total in (asked, plain)))
    with torch.no_grad():
        assert LayerMap(weight, steps, 6).zeros is None
