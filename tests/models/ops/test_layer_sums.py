"""Weighted sums of earlier layers' outputs, compiled: held to the sums that PyTorch makes term by term."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.layer_sums.native import LayerSums, covers
from models.ops.native_build import compiler

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
SUMS = 3


class Plain:
    """The same by PyTorch's operators."""

    def __init__(self, weights: Tensor):
        self.weights, self.terms, self.place = weights, [], 0

    def add(self, y: Tensor) -> None:
        self.terms.append(y)

    def next(self) -> Tensor:
        found = sum(w * y for w, y in zip(self.weights[self.place], self.terms, strict=False))  # not all are made yet
        self.place += 1
        return found


def run(kind: type, weights: Tensor, first: Tensor) -> list[Tensor]:
    """Two outputs, then a sum and an output made of it in turn: all sums."""
    sums, found = kind(weights), []
    sums.add(first), sums.add(2 * first.sin())
    for place in range(SUMS):
        if place:
            sums.add(found[-1].tanh())
        found.append(sums.next())
    return found


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(SUMS, SUMS + 1, dtype=torch.float64, generator=draw).requires_grad_()
    return weights, torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_()


def agree(got: list[Tensor], right: list[Tensor]) -> None:
    for one, other in zip(got, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 1, 1), (3, 45, 33)])
def test_they_are_the_sums_term_by_term(shape):
    given, answers = inputs(*shape), []
    for kind in (LayerSums, Plain):
        sums = run(kind, *given)
        answers.append([*sums, *torch.autograd.grad(sum(x.square().sum() for x in sums), given)])
    agree(*answers)


def test_a_gradient_of_some_of_the_sums_twice_over_and_in_any_order():
    """What another backward pass has left in the table of slopes is no part of the next one's."""
    given = inputs(2, 3, 7)
    compiled, plain = run(LayerSums, *given), run(Plain, *given)
    for place in (SUMS - 1, 0, 1, 0, SUMS - 1):
        answers = [
            torch.autograd.grad(found[place].square().sum(), given, retain_graph=True) for found in (compiled, plain)
        ]
        agree(*answers)


def test_weights_or_outputs_may_be_frozen():
    weights, first = inputs(2, 3, 7)
    for frozen in (0, 1):
        given = [x.detach() if place == frozen else x for place, x in enumerate((weights, first))]
        left = given[1 - frozen]
        answers = [torch.autograd.grad(run(kind, *given)[-1].sum(), left) for kind in (LayerSums, Plain)]
        agree(*answers)


def test_two_threads_give_the_digits_of_one():
    given, found = inputs(2, 300, 33), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sums = run(LayerSums, *given)
            found.append([*sums, *torch.autograd.grad(sums[-1].square().sum(), given)])
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, *found))


def test_outputs_of_another_shape_are_refused():
    sums = LayerSums(torch.ones(2, 2))
    sums.add(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match="beside others"):
        sums.add(torch.ones(1, 2, 4))


def test_they_are_for_training_alone_and_for_whom_compiled_code_is_asked():
    x = torch.ones(1, 2, 3)
    assert covers(x, "auto") and covers(x, "native")
    assert not covers(x, "chunked") and not covers(x.to(torch.bfloat16), "auto") and not covers(x[:0], "auto")
    with torch.no_grad():
        assert not covers(x, "auto")
    with torch.autocast("cpu"):
        assert not covers(x, "auto")
