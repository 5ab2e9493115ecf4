"""Writing without a comparison in compiled pieces: the law in float64, at every gate, length, width and grouping of heads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.ops.native_build import compiler
from models.ops.scan import scan
from models.ops.scan.pieces import hebbian
from models.ops.scan.pieces.hebbian import written_in_pieces

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")

GATES = {
    "mixed": lambda draw: -draw.abs(),
    "near 1": lambda draw: -1e-7 * draw.abs(),
    "near 0": lambda draw: -60 - draw.abs(),
    "closed in turns": lambda draw: torch.where(draw > 0, -1e-3, -math.inf),
    "wide open": torch.zeros_like,
}
# batch, tokens, heads, key width, value width, tokens of a piece: texts beside whole pieces, widths beside whole registers
SHAPES = [(2, 71, 3, 6, 5, 16), (1, 64, 4, 16, 34, 32), (3, 1, 2, 24, 8, 32)]
SHAPE, SIZE = SHAPES[0][:5], SHAPES[0][5]
BOUNDS = {torch.float64: 1e-12, torch.float32: 5e-6}


def drawn(batch: int, time: int, heads: int, keys: int, width: int, shared: bool, gates: str, rate: bool) -> list:
    """q, w, v, log_forget, rate, state."""
    draw = torch.Generator().manual_seed(time)
    own = 1 if shared else heads
    shapes = (
        (batch, time, own, keys),
        (batch, time, own, keys),
        (batch, time, heads, width),
        *[(batch, time, heads)] * 2,
    )
    q, w, v, forget, b, state = (
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in (*shapes, (batch, heads, keys, width))
    )
    return [q, w, v, GATES[gates](forget).float().double() if gates else None, b if rate else None, state]


def law(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor | None, rate: Tensor | None, state: Tensor):
    return scan(q, k, v, log_forget=log_forget, rate=rate, state=state, provider="recurrence")


def answers(form, inputs: list, kind: torch.dtype) -> list[Tensor]:
    """Outputs, the last state and all gradients."""
    leaves = [None if x is None else x.to(kind, copy=True).requires_grad_() for x in inputs]
    found = form(*leaves)
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=draw, dtype=torch.float64).to(kind) for x in found]
    return [*found, *torch.autograd.grad(found, [x for x in leaves if x is not None], weights)]


def agree(found: list[Tensor], right: list[Tensor], bound: float) -> None:
    for place, (got, expected) in enumerate(zip(found, right, strict=True)):
        assert got.isfinite().all(), place
        assert (got - expected).norm() <= bound * expected.norm().clamp_min(1e-2), place


@pytest.mark.parametrize("kind", BOUNDS, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["keys of each head", "one key"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pieces_are_the_law(shape, shared, kind):
    inputs = drawn(*shape[:5], shared, "mixed", True)
    right = answers(law, inputs, torch.float64)
    agree(answers(lambda *x: written_in_pieces(*x, shape[5]), inputs, kind), right, BOUNDS[kind])


@pytest.mark.parametrize("kind", BOUNDS, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["keys of each head", "one key"])
@pytest.mark.parametrize("gates", ["", *GATES])
def test_every_gate_with_and_without_a_rate(gates, shared, kind):
    for rate in (False, True):
        inputs = drawn(*SHAPE, shared, gates, rate)
        right = answers(law, inputs, torch.float64)
        agree(answers(lambda *x: written_in_pieces(*x, SIZE), inputs, kind), right, BOUNDS[kind])


def test_a_gate_without_a_gradient_gets_none_and_all_else_the_same():
    inputs = drawn(*SHAPE, False, "mixed", True)
    fixed = inputs[3]
    right = answers(lambda *x: written_in_pieces(*x, SIZE), inputs, torch.float64)
    some = answers(
        lambda q, w, v, b, s: written_in_pieces(q, w, v, fixed, b, s, SIZE), [*inputs[:3], *inputs[4:]], torch.float64
    )
    agree(some, [*right[:5], *right[6:]], 1e-14)


def test_gates_that_all_tokens_share_are_those_of_each():
    inputs = drawn(*SHAPE, False, "mixed", False)
    shared = inputs[3][:1, :1].expand(inputs[3].shape)
    both = [written_in_pieces(*inputs[:3], gate, *inputs[4:], SIZE) for gate in (shared, shared.contiguous())]
    assert all(map(torch.equal, *both))


@pytest.mark.parametrize("apart", [1, 2, 3, 8])
def test_groups_of_heads_with_one_key_change_nothing(apart, monkeypatch):
    inputs = drawn(1, 71, 5, *SHAPE[3:], True, "mixed", True)
    right = answers(law, inputs, torch.float64)
    monkeypatch.setattr(hebbian, "APART", apart)
    agree(answers(lambda *x: written_in_pieces(*x, SIZE), inputs, torch.float64), right, 1e-12)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shared", [False, True], ids=["keys of each head", "one key"])
def test_number_of_threads_changes_no_digit(shared, batch):
    inputs, before, found = drawn(batch, 70, 3, *SHAPE[3:], shared, "mixed", True), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(answers(lambda *x: written_in_pieces(*x, SIZE), inputs, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for more in found[1:] for one, other in zip(found[0], more, strict=True))
