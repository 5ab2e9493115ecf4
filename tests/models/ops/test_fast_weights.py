"""Large-chunk test-time training: the loop against automatic differentiation of its objective, chunks against the loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.fast_weights import fast_weights
from models.ops.fast_weights.chunked import chunked
from models.ops.fast_weights.native import native
from models.ops.fast_weights.recurrence import network, orthogonal, recurrence
from models.ops.native_build import compiler
from models.ops.providers import NotCovered, watch

HEADS, WIDTH, HIDDEN, CHUNK = 2, 4, 6, 5
COMPILED = pytest.param(native, marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))


def inputs(time: int, rate: float = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(time)
    found = {name: torch.randn(2, time, HEADS, WIDTH, dtype=torch.float64) for name in "qkv"}
    found |= {"rates": rate * torch.rand(2, time, HEADS, 3, dtype=torch.float64)}
    found |= {"momentum": torch.rand(2, time, HEADS, dtype=torch.float64)}
    shapes = {"w0": (WIDTH, HIDDEN), "w1": (HIDDEN, WIDTH), "w2": (WIDTH, HIDDEN)}
    found |= {name: torch.randn(HEADS, *shape, dtype=torch.float64) for name, shape in shapes.items()}
    return {name: x.requires_grad_() for name, x in found.items()}


def run(law, given: dict[str, Tensor], pieces: list[int], **settings):
    """y and the last state of a text read in pieces."""
    ys, state, start = [], None, 0
    weights = tuple(given[name] for name in ("w0", "w1", "w2"))
    for size in pieces:
        cut = {name: given[name][:, start : start + size] for name in ("q", "k", "v", "rates", "momentum")}
        if settings.get("still"):
            cut["momentum"] = None
        y, state = law(**cut, weights=weights, chunk=CHUNK, muon=settings.get("muon", False), state=state)
        ys.append(y)
        start += size
    return torch.cat(ys, 1), state


@pytest.mark.parametrize("muon", [False, True])
def test_loop_is_its_definition(muon):
    """Every chunk's gradient by automatic differentiation of sum r v . f(k), one matrix after the other."""
    given = {name: x.detach() for name, x in inputs(17).items()}
    y, state = run(recurrence, given, [17], muon=muon)
    for row, head in ((0, 1), (1, 0)):
        first = [given[name][head] for name in ("w0", "w1", "w2")]
        weights, before = first, [torch.zeros_like(w) for w in first]
        for start in range(0, 17, CHUNK):
            q, k, v, rates, momentum = (
                given[name][row, start : start + CHUNK, head] for name in ("q", "k", "v", "rates", "momentum")
            )
            torch.testing.assert_close(y[row, start : start + CHUNK, head], network(q, tuple(weights)))
            if len(q) < CHUNK:
                break
            leaves = [w.clone().requires_grad_() for w in weights]
            agreement = (v * network(k, tuple(leaves))).sum(-1)
            for i in range(3):
                (gradient,) = torch.autograd.grad((rates[:, i] * agreement).sum(), leaves[i], retain_graph=True)
                before[i] = gradient + momentum.mean() * before[i]
            moved = [w + (orthogonal(g) if muon else g) for w, g in zip(weights, before, strict=True)]
            weights = [w / (w.norm(dim=0) + 1e-5) * one.norm(dim=0) for w, one in zip(moved, first, strict=True)]
        for got, expected in zip(state[0], weights, strict=True):
            torch.testing.assert_close(got[row, head], expected)
    assert state[-1] == 17


@pytest.mark.parametrize(
    ("pieces", "settings"),
    [([1], {}), ([5], {}), ([23], {}), ([23], {"muon": True}), ([3, 1, 1, 13, 2, 3], {}), ([4, 7], {"still": True})],
    ids=str,
)
@pytest.mark.parametrize("form", [chunked, COMPILED])
def test_fast_forms_are_the_loop(form, pieces, settings):
    if form is native and settings.get("muon"):
        pytest.skip("what Muon needs is left to chunks, as another test says")
    given = inputs(sum(pieces))
    answers = []
    for law, cuts in ((recurrence, [sum(pieces)]), (form, pieces)):
        y, (own, before, added, moving, place) = run(law, given, cuts, **settings)
        flat = [y, *own, *before, *added, moving]
        draw = torch.Generator().manual_seed(1)
        loss = sum((x * torch.randn(x.shape, generator=draw, dtype=x.dtype)).sum() for x in flat)
        gradients = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
        answers.append([*flat, *(torch.zeros(()) if g is None else g for g in gradients)])
        assert place == sum(pieces)
    for right, got in zip(*answers, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", [chunked, COMPILED])
@pytest.mark.parametrize("rate", [0.0, 1e-9, 100.0])
def test_rates_that_are_nothing_or_huge_leave_lengths_as_they_were(rate, form):
    given = inputs(21, rate)
    y, (own, *_) = run(form, given, [21])
    assert torch.autograd.grad(y.sum(), given["rates"])[0].isfinite().all()
    for w, name in zip(own, ("w0", "w1", "w2"), strict=True):
        length = given[name].norm(dim=1).expand(2, -1, -1)
        torch.testing.assert_close(w.norm(dim=2), length, rtol=1e-4, atol=0)
    if rate == 0:
        still = network(given["q"].transpose(1, 2), tuple(given[name] for name in ("w0", "w1", "w2"))).transpose(1, 2)
        torch.testing.assert_close(y, still, rtol=1e-3, atol=1e-3)


def test_muon_brings_singular_values_near_one():
    for shape in ((3, 7, 4), (3, 4, 7), (3, 5, 5)):
        g = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonal(g))
        assert values.min() > 0.7 and values.max() < 1.3
        left, _, right = torch.linalg.svd(g, full_matrices=False)
        assert (orthogonal(g) - left @ right).norm() < 0.3 * right.norm()


@pytest.mark.parametrize("form", [chunked, COMPILED])
def test_half_precision_keeps_a_float32_state(form):
    given = {name: x.detach().to(torch.bfloat16) for name, x in inputs(13).items()}
    y, (own, before, added, moving, _) = run(form, given, [13])
    assert y.dtype == torch.bfloat16 and {x.dtype for x in (*own, *before, *added, moving)} == {torch.float32}
    exact, _ = run(recurrence, {name: x.double() for name, x in given.items()}, [13])
    assert (y.double() - exact).norm() < 1e-2 * exact.norm()


@pytest.mark.parametrize("law", [recurrence, chunked, COMPILED])
def test_state_does_not_move_with_the_weights_that_began_it(law):
    given = {name: x.detach() for name, x in inputs(3).items()}
    _, (own, *_) = run(law, given, [3])
    kept = [w.clone() for w in own]
    for name in ("w0", "w1", "w2"):
        given[name].add_(1)
    assert all(map(torch.equal, own, kept))


@pytest.mark.parametrize("form", [chunked, COMPILED])
def test_float32_keeps_its_digits(form):
    given = inputs(23)
    answers = []
    for kind in (torch.float64, torch.float32):
        leaves = {name: x.detach().to(kind).requires_grad_() for name, x in given.items()}
        y, _ = run(form, leaves, [23])
        answers.append([y, *torch.autograd.grad(y.square().sum(), list(leaves.values()))])
    for exact, got in zip(*answers, strict=True):
        assert (got.double() - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.skipif(not compiler(), reason="no C compiler is here")
def test_compiled_two_threads_give_the_digits_of_one_and_a_state_is_left_as_it_was():
    given, found = inputs(23), []
    _, state = run(native, given, [7])
    before = [x.clone() for group in state[:3] for x in group]
    weights = tuple(given[name] for name in ("w0", "w1", "w2"))
    inner = {name: given[name] for name in ("q", "k", "v", "rates", "momentum")}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y, (own, *_) = native(**inner, weights=weights, chunk=CHUNK, state=state)
            loss = y.square().sum() + own[0].sum()
            found.append([y, *own, *torch.autograd.grad(loss, list(given.values()), retain_graph=True)])
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, *found))
    assert all(map(torch.equal, before, [x for group in state[:3] for x in group]))


@pytest.mark.skipif(not compiler(), reason="no C compiler is here")
def test_auto_is_compiled_and_leaves_muon_to_chunks():
    given = {name: x.detach() for name, x in inputs(7).items()}
    inner = {name: given[name] for name in ("q", "k", "v", "rates", "momentum")}
    weights = tuple(given[name] for name in ("w0", "w1", "w2"))
    for muon, provider in ((False, "native"), (True, "chunked")):
        with watch() as ran:
            fast_weights(**inner, weights=weights, chunk=CHUNK, muon=muon)
        assert ran == {provider}
    with pytest.raises(NotCovered, match="orthogonalise"):
        fast_weights(**inner, weights=weights, chunk=CHUNK, muon=True, provider="native")
