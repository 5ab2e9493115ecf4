"""Models of which only shapes are asked are those that are built in earnest, and nothing is drawn for them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import baselines  # noqa: F401
from models import registry
from models.language_model import Size, build
from models.matching.shapes_only import shapes_only
from models.shell.model import deep_enough

SIZE = Size(64, 32, 2, 2)


def described(model: nn.Module) -> list[tuple]:
    every = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(value.shape), value.dtype, value.requires_grad) for name, value in every]


@pytest.mark.parametrize("name", registry.names())
def test_a_model_has_the_shapes_of_one_that_is_built(name):
    size = deep_enough(registry.entry(name), SIZE)
    with shapes_only():
        found = build(name, size)
    assert {value.device.type for value in found.parameters()} == {"meta"}
    assert described(found) == described(build(name, size))


OPERATIONS = {
    "a joint shape": lambda: torch.zeros(3, 1) * torch.zeros(4),
    "a plain number": lambda: 2.0 ** (-5 - torch.arange(4, dtype=torch.float64)),
    "whole numbers": lambda: torch.arange(1, 7, 2) + 1,
    "two dtypes": lambda: torch.zeros(2, dtype=torch.float64) + torch.zeros(2),
    "halves of whole numbers": lambda: torch.arange(3) / 2,
    "counted": lambda: torch.arange(1.0, 3.0, 0.5).log().repeat(2, 3, 1),
    "spaced downwards": lambda: torch.linspace(1, 0, 5),
    "drawn": lambda: torch.randn(2, 3).clamp(min=0.1).softmax(-1),
    "drawn in bfloat16": lambda: torch.rand(2, dtype=torch.bfloat16),
    "in place": lambda: torch.empty(2, 2).normal_().mul_(3).add_(torch.ones(2)).fill_(1),
    "copied": lambda: torch.empty(2, 3).copy_(torch.ones(3)),
    "orthogonal": lambda: nn.init.orthogonal_(torch.empty(4, 4)),
    "cut off": lambda: nn.init.trunc_normal_(torch.empty(4, 4)),
    "joined": lambda: torch.cat([torch.zeros(2, 3), torch.ones(2, 1)], dim=-1),
    "joined with nothing": lambda: torch.cat([torch.zeros(0), torch.ones(2, 1)]),
    "joined in two dtypes": lambda: torch.cat([torch.zeros(1), torch.arange(2)]),
    "a norm": lambda: torch.ones(2, 3).norm(dim=1),
    "a norm along the last, kept": lambda: torch.ones(2, 3).norm(dim=-1, keepdim=True),
    "a norm in another dtype": lambda: torch.linalg.vector_norm(torch.ones(2, 3), dim=1, dtype=torch.float64),
    "a product": lambda: torch.zeros(2, 3) @ torch.zeros(3, 4),
    "products": lambda: torch.zeros(5, 2, 3) @ torch.zeros(5, 3, 4),
    "stacked": lambda: torch.stack([torch.zeros(2, 3), torch.zeros(2, 3)], dim=-1),
    "a layer's norm": lambda: F.layer_norm(torch.zeros(2, 3, 4), (3, 4)),
    "a norm of all": lambda: torch.ones(2, 3).norm(),
    "compared": lambda: torch.rand(3) > 0.5,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_the_shape_and_dtype_that_torch_gives(name):
    expected = OPERATIONS[name]()
    with shapes_only():
        found = OPERATIONS[name]()
    assert (tuple(found.shape), found.dtype) == (tuple(expected.shape), expected.dtype)
    assert found.device.type == "meta"


@pytest.mark.parametrize("wrong", [
    lambda: torch.zeros(3) * torch.zeros(4),
    lambda: torch.zeros(3).add_(torch.zeros(2, 3)),
    lambda: torch.arange(3, 1),
    lambda: torch.zeros(2, 3).repeat(2),
    lambda: torch.cat([torch.zeros(2, 3), torch.zeros(3, 3)], dim=1),
    lambda: torch.cat([]),
    lambda: torch.stack([]),
    lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
    lambda: F.layer_norm(torch.zeros(2, 3), (2,)),
    lambda: torch.cat([torch.zeros(2), torch.zeros(2, 3)]),
    lambda: torch.zeros(2, 3).norm(dim=2),
    lambda: torch.zeros(2, 3).norm(dim=(1, -1)),
    lambda: nn.init.kaiming_uniform_(torch.empty(3)),
])  # fmt: skip
def test_what_cannot_be_built_is_refused_as_torch_refuses_it(wrong):
    with pytest.raises((RuntimeError, ValueError, IndexError)), shapes_only():
        wrong()


def test_a_number_that_is_wanted_on_the_cpu_is_computed():
    with shapes_only():
        assert torch.arange(3, device="cpu").exp().sum().item() > 1
        assert torch.empty(2, device="cpu").fill_(3.0).mul(2).tolist() == [6.0, 6.0]


def test_shapes_need_no_compiler():
    """torch's compiler takes seconds to be imported."""
    code = (
        "import sys, baselines; from models import registry; from models.matching.shapes_only import shapes_only\n"
        "from models.language_model import Size, solve; from models.shell.model import deep_enough\n"
        "for entry in map(registry.entry, registry.names()):\n"
        "    solve(entry, deep_enough(entry, Size(64, 32, 2, 2)), {})\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
