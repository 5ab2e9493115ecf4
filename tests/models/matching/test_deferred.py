"""Parts of torch that a dry run imports when something asks for them: until then they are not there, and then all is as ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from models.matching import deferred
from schema.places import ROOT


def told(program: str) -> str:
    """What a program prints in which torch is imported with its parts deferred."""
    begin = "import sys\nfrom models.matching import deferred\ndeferred.defer()\nimport torch\n"
    end = "\nprint('torch._refs' in sys.modules)"
    asked = [sys.executable, "-c", begin + program + end]
    return subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def test_until_something_asks_they_are_not_imported():
    assert told("import inspect; inspect.getmodule(torch.nn.Linear(2, 2))") == "False"


@pytest.mark.parametrize(
    "program",
    [
        "torch.distributions.Normal(0.0, 1.0)",
        "from torch.distributions import Normal",
        "from torch.distributions.normal import Normal",
        "import torch.nn.quantized.dynamic; torch.nn.quantized.dynamic.Linear",
        "torch.export.export",
        "from torch.masked import *; as_masked_tensor",
        "deferred.load_all(); import torch.distributions.normal",
    ],
)
def test_whoever_asks_has_them(program):
    told(program)


def test_an_operation_without_a_compiled_form_for_shapes_has_its_python_form():
    program = """
from models.matching.shapes_only import shapes_only
with shapes_only():
    a, b = torch.empty(4, 3), torch.empty(3)
    a.view(2, 6).transpose(0, 1)[1:].expand(2, 5, 2).permute(0, 2, 1).unsqueeze(0).clone().detach().to(torch.float64)
    torch.ones(2), torch.zeros(2), torch.full((2,), 0.5), torch.scalar_tensor(1.0), a.split(2), a.diagonal()
    assert torch.view_as_real(torch.view_as_complex(torch.empty(4, 2))).shape == (4, 2)
"""
    assert told(program) == "False"
    asks = "    assert torch.complex(b, b).is_complex() and torch.addmm(b, a, torch.empty(3, 3)).shape == (4, 3)"
    assert told(program + asks) == "True"


def test_without_a_word_nothing_is_deferred():
    assert deferred._FINDER not in sys.meta_path
    deferred.load_all()  # which then has nothing to do
