"""The calls into mamba-ssm and causal-conv1d against the recurrences, without a GPU: on stand-ins, and the packages' own code.

Their own code is taken from the folder that TITANOMACHY_CUDA_SOURCES names, which holds the two packages' Python files (an
unpacked wheel or source release): the references in PyTorch, and mamba_chunk_scan_combined in Triton's interpreter where
TRITON_INTERPRET=1.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from models.ops.channel_scan import mamba_ssm as mamba_ssm_channels
from models.ops.channel_scan.recurrence import BlockWeights
from models.ops.channel_scan.recurrence import recurrence as channel_scan
from models.ops.providers import NotCovered
from models.ops.scan import mamba_ssm
from models.ops.scan.recurrence import recurrence
from models.ops.selective_scan import mamba_ssm as mamba_ssm_selective
from models.ops.selective_scan.recurrence import selective
from models.ops.short_convolution import causal_conv1d as causal_conv1d_convolution
from models.ops.short_convolution.recurrence import recurrence as convolution
from tests.support import cuda_stand_ins

SOURCES = os.environ.get("TITANOMACHY_CUDA_SOURCES", "")
NEEDS_SOURCES = pytest.mark.skipif(not SOURCES, reason="TITANOMACHY_CUDA_SOURCES names no folder")
OWN_CODE = pytest.param("own code", marks=NEEDS_SOURCES)


def module(monkeypatch, name: str, **contents):
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def own_packages(monkeypatch) -> None:
    """The packages' files without what they import at the top, and empty modules for their compiled parts."""
    for name in ("mamba_ssm", "causal_conv1d"):
        module(monkeypatch, name, __path__=[str(Path(SOURCES) / name)])
    for name in ("selective_scan_cuda", "causal_conv1d_cuda"):
        module(monkeypatch, name)


@pytest.fixture(autouse=True)
def no_device_is_needed(monkeypatch):
    for form in (mamba_ssm, mamba_ssm_selective, causal_conv1d_convolution):
        monkeypatch.setattr(form, "require", lambda provider, like: None)


@pytest.fixture(params=["stand-in", OWN_CODE])
def selective_scan(request, monkeypatch):
    kernel = cuda_stand_ins.selective_scan_fn
    if request.param == "own code":
        pytest.importorskip("triton", reason="mamba-ssm's files import triton")
        own_packages(monkeypatch)
        found = import_module("mamba_ssm.ops.selective_scan_interface")
        assert inspect.signature(found.selective_scan_fn) == inspect.signature(kernel)
        kernel = found.selective_scan_ref
    monkeypatch.setattr(mamba_ssm_selective, "kernel_of", lambda module, name: kernel)


@pytest.fixture(params=["stand-in", OWN_CODE])
def chunk_scan(request, monkeypatch):
    kernel = cuda_stand_ins.mamba_chunk_scan_combined
    if request.param == "own code":
        from baselines.oracles.parity.fla import interpreter

        if interpreter.reason():
            pytest.skip(interpreter.reason())
        interpreter.prepare()
        own_packages(monkeypatch)
        monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
        machine = types.SimpleNamespace(multi_processor_count=2)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: machine)
        found = import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
        assert inspect.signature(found) == inspect.signature(kernel)
        kernel = found
    monkeypatch.setattr(mamba_ssm, "kernel_of", lambda module, name: kernel)


@pytest.fixture(params=["stand-in", OWN_CODE])
def causal_conv1d(request, monkeypatch):
    if request.param == "stand-in":
        module(monkeypatch, "causal_conv1d", causal_conv1d_fn=cuda_stand_ins.causal_conv1d_fn)
        return
    own_packages(monkeypatch)
    found = import_module("causal_conv1d.causal_conv1d_interface")
    assert inspect.signature(found.causal_conv1d_fn) == inspect.signature(cuda_stand_ins.causal_conv1d_fn)
    module(monkeypatch, "causal_conv1d", causal_conv1d_fn=found.causal_conv1d_ref)


def agree(law, form, given: dict[str, torch.Tensor], bound: float = 2e-6) -> None:
    """Outputs, last states and gradients to every input, relative to the largest entry of the recurrence's."""
    answers = []
    for side in (law, form):
        inputs = {name: x.clone().requires_grad_() for name, x in given.items()}
        outputs = side(**inputs)
        weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)) for i, x in enumerate(outputs)]
        gradients = torch.autograd.grad(outputs, list(inputs.values()), weights)
        named = ("y", "state")[: len(outputs)]
        answers.append(dict(zip((*named, *inputs), (*outputs, *gradients), strict=True)))
    for name, expected in answers[0].items():
        error = (answers[1][name] - expected).abs().max()
        assert error <= bound * expected.abs().max().clamp(min=1e-2), name


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("time", [1, 7, 33])
def test_selective_scan_is_the_law(selective_scan, time, carried):
    torch.manual_seed(time)
    given = {
        "x": torch.randn(2, time, 6),
        "delta": F.softplus(torch.randn(2, time, 6) - 2),
        "A": -16 * torch.rand(6, 5) - 0.5,
        "B": torch.randn(2, time, 5),
        "C": torch.randn(2, time, 5),
    }
    if carried:
        given["state"] = torch.randn(2, 6, 5)
    agree(selective, mamba_ssm_selective.selective, given)
    with torch.no_grad():
        for ours, law in zip(mamba_ssm_selective.selective(**given), selective(**given), strict=True):
            torch.testing.assert_close(ours, law, rtol=1e-5, atol=1e-5)


def test_state_of_the_selective_scan_crosses_pieces_with_its_gradient(selective_scan):
    """The package gives no gradient to the state that it returns; through two pieces it must arrive all the same."""
    torch.manual_seed(0)
    x, delta = torch.randn(1, 12, 4), torch.rand(1, 12, 4)
    A, B, C = -torch.rand(4, 3), torch.randn(1, 12, 3), torch.randn(1, 12, 3)
    gradients = []
    for form in (selective, mamba_ssm_selective.selective):
        first = x.clone().requires_grad_()
        _, state = form(first[:, :5], delta[:, :5], A, B[:, :5], C[:, :5])
        y, _ = form(first[:, 5:], delta[:, 5:], A, B[:, 5:], C[:, 5:], state)
        gradients.append(torch.autograd.grad(y.square().sum(), first)[0])
    assert gradients[0][:, :5].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pieces", [1, 9])
def test_channel_scan_is_the_law(selective_scan, pieces):
    torch.manual_seed(pieces)
    shapes = {"project": (16, 4), "taps": (8, 4), "bias": (8,), "select": (11, 8), "step": (8, 1), "step_bias": (8,)}
    shapes |= {"rates": (8, 5), "skip": (8,), "out": (4, 8)}
    given = {f"{way} {name}": torch.randn(shape) / 2 for way in "fb" for name, shape in shapes.items()}
    given |= {f"{way} rates": -torch.rand(8, 5) - 0.5 for way in "fb"} | {"x": torch.randn(3, pieces, 4)}

    def side(form):
        def computed(**inputs):
            ways = (BlockWeights(*(inputs[f"{way} {name}"] for name in BlockWeights._fields)) for way in "fb")
            return (form(inputs["x"], *ways),)

        return computed

    agree(side(channel_scan), side(mamba_ssm_channels.channel_scan), given, bound=5e-6)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("time, carried", [(1, True), (7, False), (70, True)])
def test_chunk_scan_is_the_law(chunk_scan, time, carried, heads):
    torch.manual_seed(time)
    delta = F.softplus(torch.randn(2, time, 3) - 2)
    given = {
        "q": torch.randn(2, time, heads, 16),
        "k": torch.randn(2, time, heads, 16),
        "v": torch.randn(2, time, 3, 8),
    }
    given |= {"log_forget": -delta * torch.tensor([1.0, 4.0, 16.0]), "rate": delta}
    if carried:
        given["state"] = torch.randn(2, 3, 16, 8)
    agree(recurrence, mamba_ssm.scan, given, bound=1e-5)


def test_step_that_underflows_leaves_the_state(chunk_scan):
    """Delta = 0: nothing is forgotten, nothing is written, and nothing is divided by zero."""
    q = torch.ones(1, 2, 1, 16)
    state = torch.randn(1, 1, 16, 8)
    zero = torch.zeros(1, 2, 1)
    _, last = mamba_ssm.scan(q, q, torch.ones(1, 2, 1, 8), log_forget=-zero, rate=zero, state=state)
    torch.testing.assert_close(last, state)


@pytest.mark.parametrize("change", [{"compare": True}, {"rate": None}, {"log_forget": None}, {"log_forget": "channel"}])
def test_other_rows_than_mamba2_are_refused(change):
    x, gate = torch.ones(1, 2, 1, 16), -torch.ones(1, 2, 1)
    if change.get("log_forget") == "channel":
        change = {"log_forget": -x}
    with pytest.raises(NotCovered, match="Mamba-2's row alone"):
        mamba_ssm.scan(x, x, x, **{"log_forget": gate, "rate": -gate, **change})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [2, 4])
@pytest.mark.parametrize("time, carried", [(1, True), (2, False), (9, True), (9, False)])
def test_convolution_is_the_law(causal_conv1d, time, carried, kernel, bias):
    torch.manual_seed(time)
    given = {"x": torch.randn(2, time, 16), "weight": torch.randn(16, 1, kernel)}
    if bias:
        given["bias"] = torch.randn(16)
    if carried:
        given["state"] = torch.randn(2, kernel - 1, 16)
    agree(convolution, causal_conv1d_convolution.convolution, given)


def test_convolution_takes_a_slice_of_a_projection_and_leaves_its_own_memory(causal_conv1d):
    """Rows of an odd stride, as a split of a wider projection has them."""
    x = torch.randn(2, 9, 21)[..., 3:19]
    weight = torch.randn(16, 1, 4)
    y, left = causal_conv1d_convolution.convolution(x, weight)
    torch.testing.assert_close(y, convolution(x, weight)[0])
    assert torch.equal(left, x[:, -3:]) and left.untyped_storage().nbytes() == 2 * 3 * 16 * 4


def test_one_token_of_one_row_is_laid_out_anew(causal_conv1d):
    """A slice of one row counts as contiguous whatever its strides and its place in memory."""
    x = torch.randn(1, 1, 21)[..., 3:19]
    assert x.is_contiguous() and x.stride()[:2] == (21, 21)
    weight = torch.randn(16, 1, 4)
    y, _ = causal_conv1d_convolution.convolution(x, weight, state=torch.zeros(1, 3, 16))
    torch.testing.assert_close(y, convolution(x, weight)[0])


@pytest.mark.parametrize("width, kernel", [(12, 4), (16, 5), (16, 1)])
def test_convolution_of_other_widths_is_refused(width, kernel):
    with pytest.raises(NotCovered, match=f"not {width} with {kernel}"):
        causal_conv1d_convolution.convolution(torch.ones(1, 2, width), torch.ones(width, 1, kernel))
