"""Operators of PyTorch as prepared calls: the same bits in any layout, and refused where another rounding is possible."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.ops import native_build
from models.ops.prepared_calls.operators import copy, merged, operator
from models.ops.prepared_calls.walk import walk
from models.shell.decoding.calls import storage_of

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="operators are compiled")


class Asking(TorchDispatchMode):
    """Prepares every operator that it hears of, and makes it again from what was prepared."""

    def __init__(self):
        super().__init__()
        self.made, self.left = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = {storage_of(one) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        if not isinstance(found, torch.Tensor) or storage_of(found) in given:  # a view
            return found
        prepared = operator(func, args, found, **(kwargs or {}))
        (self.left if prepared is None else self.made).append(func.overloadpacket.__name__)
        if prepared is not None:
            expected = found.clone()
            found.fill_(77)
            walk(prepared.calls)()
            assert torch.equal(found, expected) and torch.equal(found.signbit(), expected.signbit())
        return found


def asked(run):
    with Asking() as asking, torch.no_grad():
        run()
    return asking


def drawn(*shape, dtype=torch.float32):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))
    return (x * torch.logspace(-30, 30, x.numel(), dtype=torch.float64).view(shape)).to(dtype)


KINDS = [torch.float32, torch.float64]
SAME = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "of a row": lambda x, y: x * y[:, :1],
    "of a column": lambda x, y: x[..., :1] - y,
    "transposed": lambda x, y: x.mT + y.mT,
    "one transposed": lambda x, y: x.mT.contiguous().mT / y,
    "part": lambda x, y: x[:, 1:, ::2] + y[:, :2, ::2],
    "number": lambda x, y: (x * 0.1 + 3) / 7 - 1e-6,
    "from a number": lambda x, y: 1 - x,
    "scalar": lambda x, y: x * y[0, 0, 0],
    "negative": lambda x, y: -x.mT,
    "square": lambda x, y: x**2,
    "clone": lambda x, y: x.mT.clone(),
    "contiguous": lambda x, y: x.mT.contiguous(),
    "expanded": lambda x, y: x[:, :1].expand(-1, 5, -1).contiguous(),
    "cat": lambda x, y: torch.cat([x, y[:, :1], x.new_zeros(0), x[:, :0]], 1),
    "cat behind": lambda x, y: torch.cat([x.mT, y.mT], -1),
    "stack": lambda x, y: torch.stack([x, y], 2),
    "pad": lambda x, y: torch.nn.functional.pad(x, (0, 2, 3, 1)),
    "pad with a number": lambda x, y: torch.nn.functional.pad(x, (1, 0), value=0.1),
    "nothing": lambda x, y: x[:, :0] + y[:, :0],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAME)
def test_a_prepared_operator_gives_the_same_bits(name, kind):
    x, y = drawn(2, 3, 16, dtype=kind), drawn(2, 3, 16, dtype=kind).flip(2).contiguous()
    asking = asked(lambda: SAME[name](x, y))
    assert asking.made and not set(asking.left) - {"new_zeros"}


def test_zeros_infinities_and_signs_stay():
    odd = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 1e-45, -1e-45, 3e38])
    for name in ("add", "subtract", "multiply", "divide"):
        one, other = odd[:, None].expand(7, 7).contiguous(), odd[None].expand(7, 7).contiguous()
        expected = SAME[name](one, other)
        usable = ~expected.isnan()
        one, other = one[usable], other[usable]
        assert asked(lambda one=one, other=other, name=name: SAME[name](one, other)).made


LEFT = {
    "exp": lambda x: x.exp(),
    "sigmoid": lambda x: x.sigmoid(),
    "softplus": lambda x: torch.nn.functional.softplus(x),
    "sum": lambda x: x.sum(1),
    "cube": lambda x: x**3,
    "mm": lambda x: x[0] @ x[0].mT,
    "add with a factor": lambda x: torch.add(x, x, alpha=0.3),
    "another dtype": lambda x: x * x.double(),
    "a double of no axes": lambda x: x * torch.tensor(0.1, dtype=torch.float64),
    "whole numbers": lambda x: torch.arange(3) + 1,
    "half precision": lambda x: torch.zeros(3, dtype=torch.bfloat16) + 1,
    "a narrower frame": lambda x: torch.nn.functional.pad(x, (-1, 0)),
    "rounded down": lambda x: torch.div(x, 2.0, rounding_mode="floor"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_may_be_rounded_otherwise_stays_pytorchs(name):
    x = drawn(2, 3, 16)
    asking = asked(lambda: LEFT[name](x))
    assert asking.left and set(asking.made) <= {"clone"}


def test_rows_of_a_table_and_an_index_that_is_none():
    table, tokens = drawn(9, 4), torch.tensor([[3, 8], [0, 0]])
    asking = asked(lambda: torch.nn.functional.embedding(tokens, table))
    assert asking.made == ["embedding"]
    found = torch.empty(2, 2, 4)
    prepared = operator(torch.ops.aten.embedding.default, (table, tokens), found)
    again = walk(prepared.calls)
    again()
    assert torch.equal(found, table[tokens]) and not prepared.refused.value
    for outside in (9, -1):
        tokens[0, 1], prepared.refused.value = outside, 0
        again()
        assert prepared.refused.value


def test_a_copy_goes_from_any_layout_to_any():
    source, to = drawn(3, 4, 5).transpose(0, 2), torch.zeros(4, 3, 5).permute(2, 0, 1)
    walk(copy(to, source).calls)()
    assert torch.equal(to, source)
    whole, other = torch.arange(1 << 40, (1 << 40) + 6).view(2, 3), torch.zeros(3, 2, dtype=torch.int64)
    walk(copy(other, whole.mT).calls)()
    assert torch.equal(other, whole.mT)
    assert copy(torch.zeros(2), torch.zeros(2, dtype=torch.float64)) is None
    assert copy(torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)) is None
    marked = torch.view_as_complex(torch.ones(3, 2)).conj().imag  # negative by a mark on the tensor, not in memory
    assert copy(torch.zeros(3), marked) is None


def test_axes_along_which_all_go_on_are_one():
    assert merged([(2, 12, 12), (3, 4, 4), (1, 9, 9), (4, 1, 1)]) == [(24, 1, 1)]
    assert merged([(2, 1, 3), (3, 2, 1)]) == [(3, 2, 1), (2, 1, 3)]
    assert merged([(2, 4, 0), (4, 1, 0)]) == [(8, 1, 0)]
