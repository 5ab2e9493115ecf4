"""RMS norm and SiLU gates compiled for training: the numbers and gradients of torch's, and where they leave the work to torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.layers import RMSNorm, SwiGLU, gated
from models.ops.dense import training
from models.ops.native_build import compiler
from models.ops.providers import probing, watch
from models.titans.memory_layer import HeadNorm

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
KINDS = [(torch.float64, 1e-13), (torch.float32, 2e-6)]
SHAPES = [(2, 3, 5), (1, 70, 8), (3, 7, 4, 33), (2, 90, 2, 16), (2, 5, 256)]


@pytest.fixture(autouse=True)
def _narrow_ones_too(monkeypatch):
    for name in ("LEAST", "LEAST_HEAD", "LEAST_FEED"):
        monkeypatch.setattr(training, name, 1)


def held_to_torch(run: Callable[[str], Tensor], leaves: list[Tensor], bound: float) -> None:
    """`run(provider)` compiled is what it is in PyTorch, its gradients too."""
    found = []
    for provider in ("auto", "chunked"):
        for leaf in leaves:
            leaf.grad = None
        with watch() as ran:
            y = run(provider)
        assert ("native" in ran) == (provider == "auto")
        torch.manual_seed(1)
        (y * torch.randn(y.shape, dtype=y.dtype)).sum().backward()
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for got, right in zip(*found, strict=True):
        assert (got - right).norm() <= bound * right.norm()


def drawn(*shape: int, kind: torch.dtype) -> Tensor:
    return torch.randn(shape, dtype=kind, requires_grad=True)


@pytest.mark.parametrize(("kind", "bound"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", ["none", "a row's", "all heads'"])
def test_norm(kind, bound, shape, gain):
    torch.manual_seed(0)
    if gain == "all heads'":
        norm = HeadNorm(shape[2], shape[-1] * shape[2]).to(kind) if len(shape) == 4 else HeadNorm(1, shape[-1]).to(kind)
    else:
        norm = RMSNorm(shape[-1], weight=gain != "none", eps=1e-3).to(kind)
    for weight in norm.parameters():
        nn.init.normal_(weight)
    x = drawn(*shape if len(shape) == 4 or gain != "all heads'" else (*shape[:2], 1, shape[-1]), kind=kind)

    def run(provider: str) -> Tensor:
        norm.provider = provider
        return norm(x)

    held_to_torch(run, [x, *norm.parameters()], bound)


@pytest.mark.parametrize(("kind", "bound"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lies", ["apart", "in one projection", "turned"])
def test_gate(kind, bound, shape, lies):
    torch.manual_seed(0)
    if lies == "in one projection":
        x = drawn(*shape[:-1], 3 * shape[-1], kind=kind)
        held_to_torch(lambda provider: gated(*(x.chunk(3, -1)[at] for at in (0, 2)), provider), [x], bound)
        return
    y, z = (drawn(*shape, kind=kind) for _ in range(2))
    turn = (lambda x: x.mT.contiguous().mT) if lies == "turned" else lambda x: x
    held_to_torch(lambda provider: gated(turn(y), turn(z), provider), [y, z], bound)


@pytest.mark.parametrize(("kind", "bound"), KINDS)
@pytest.mark.parametrize("inner", [1, 21, 64])
def test_swiglu(kind, bound, inner):
    torch.manual_seed(0)
    layer, x = SwiGLU(12, inner).to(kind), drawn(2, 9, 12, kind=kind)

    def run(provider: str) -> Tensor:
        layer.provider = provider
        return layer(x)

    held_to_torch(run, [x, *layer.parameters()], bound)


@pytest.mark.parametrize("form", ["norm", "a wide gain", "gate", "swiglu"])
def test_may_be_differentiated_twice(form):
    torch.manual_seed(0)
    x, z = (drawn(1, 2, 2, 3, kind=torch.float64) for _ in range(2))
    gain = drawn(6 if form == "a wide gain" else 3, kind=torch.float64)
    run, given = {
        "norm": (lambda x, gain: training.rms_norm(x, gain, 1e-3), (x, gain)),
        "a wide gain": (lambda x, gain: training.rms_norm(x, gain, 1e-3), (x, gain)),
        "gate": (training.gated, (x, z)),
        "swiglu": (training.gated_halves, (drawn(1, 2, 6, kind=torch.float64),)),
    }[form]
    assert torch.autograd.gradcheck(run, given) and torch.autograd.gradgradcheck(run, given)


def test_threads_change_no_digit():
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            norm, x, z = RMSNorm(40), torch.randn(3, 50, 40, requires_grad=True), torch.randn(3, 50, 40)
            gated(norm(x), z).square().sum().backward()
            found.append([x.grad, norm.weight.grad])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for again in found[1:] for one, other in zip(found[0], again, strict=True))


def test_what_is_not_covered_goes_on_with_torch(monkeypatch):
    x = torch.randn(2, 5, 24, requires_grad=True)
    assert training.rms_norm(x, None, 1e-6) is not None
    for run in (lambda x: training.rms_norm(x, None, 1e-6), lambda x: training.gated(x, x), training.gated_halves):
        assert run(x.detach()) is None and run(x.bfloat16()) is None and run(x[0]) is None
        with torch.no_grad():
            assert run(x) is None
        with probing():
            assert run(x) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert run(x) is None
    assert training.rms_norm(x, None, 1e-6, "chunked") is None
    monkeypatch.undo()  # narrow tokens keep torch's digits, to which committed trainings come again
    assert training.rms_norm(x, None, 1e-6) is training.gated(x, x) is training.gated_halves(x) is None
