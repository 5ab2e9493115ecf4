"""Mamba-3's scan: its forms against the law, and the authors' kernels, on a stand-in and in Triton's interpreter.

The kernels' own files are taken from the folder that TITANOMACHY_CUDA_SOURCES names, where TRITON_INTERPRET=1; they round to
bfloat16, which the interpreter cannot multiply, so float32 is put in its place and their mathematics is what is held.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.oracles.parity.fla import interpreter
from models.ops.native_build import compiler
from models.ops.providers import NotCovered
from models.ops.trapezoidal_scan import by_scan, mamba_ssm, trapezoidal_scan
from models.ops.trapezoidal_scan.turning import reduced
from tests.support import cuda_stand_ins

SOURCES = os.environ.get("TITANOMACHY_CUDA_SOURCES", "")
OWN_CODE = pytest.param(
    "own code", marks=pytest.mark.skipif(not SOURCES, reason="TITANOMACHY_CUDA_SOURCES names no folder")
)
COMPILED = pytest.param("native", marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))
INTERPRETED = pytest.param(
    "fla", marks=pytest.mark.skipif(bool(interpreter.reason()), reason=interpreter.reason() or "runs here")
)
STATES = ("angle", "matrix", "last k", "last v")


def inputs(time: int, carried: bool, kind: torch.dtype = torch.float64, shared: bool = True) -> dict[str, Tensor]:
    torch.manual_seed(time)
    heads, keys, values, angles = 2, 16, 32, 4
    given = {name: torch.randn(2, time, 1 if shared else heads, keys) for name in "qk"}
    given |= {"v": torch.randn(2, time, heads, values), "delta": F.softplus(torch.randn(2, time, heads) - 2)}
    given["log_forget"] = -torch.rand(2, time, heads) * 0.3
    given |= {"trapezoid": torch.randn(2, time, heads), "speed": torch.randn(2, time, angles)}
    given |= {"bias_q": torch.randn(heads, keys), "bias_k": torch.randn(heads, keys), "skip": torch.randn(heads)}
    if carried:
        shapes = (angles,), (keys, values), (keys,), (values,)
        given |= {name: torch.randn(2, heads, *shape) for name, shape in zip(STATES, shapes, strict=True)}
    return {name: x.to(kind) for name, x in given.items()}


def answers(form, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, last states, and gradients of all inputs by one weighted sum of the outputs."""
    own = {name: x.clone().requires_grad_() for name, x in given.items()}
    state = tuple(own[name] for name in STATES) if "angle" in own else None
    y, after = form(**{name: x for name, x in own.items() if name not in STATES}, state=state)
    outputs = dict(zip(("y", *(f"new {name}" for name in STATES)), (y, *after), strict=True))
    ways = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype).cos().view_as(x) for x in outputs.values()]
    gradients = torch.autograd.grad(list(outputs.values()), list(own.values()), ways, allow_unused=True)
    found = outputs | {name: x for name, x in zip(own, gradients, strict=True) if x is not None}
    return {name: x.detach() for name, x in found.items()}


def agree(form, given: dict[str, Tensor], bound: float) -> None:
    ours, law = answers(form, given), answers(lambda **named: trapezoidal_scan(**named, provider="recurrence"), given)
    assert ours.keys() == law.keys()
    for name, expected in law.items():
        apart = ours[name] - expected  # a turn more or less is the same angle
        apart = reduced(apart) if name == "new angle" else apart
        assert apart.abs().max() <= bound * expected.abs().max().clamp(min=1e-2), name


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("time, carried", [(1, True), (7, False), (70, True)])
@pytest.mark.parametrize("provider", ["chunked", COMPILED, INTERPRETED])
def test_forms_are_the_law_with_all_gradients(provider, time, carried, shared):
    kind, bound = (torch.float32, 1e-5) if provider == "fla" else (torch.float64, 1e-10)
    if provider == "fla":
        interpreter.prepare()
    agree(lambda **named: trapezoidal_scan(**named, provider=provider), inputs(time, carried, kind, shared), bound)


def test_pieces_are_the_text():
    given = inputs(23, False)
    whole, _ = trapezoidal_scan(**given, provider="recurrence")
    ys, state, start = [], None, 0
    for length, provider in ((1, "chunked"), (9, "recurrence"), (0, "chunked"), (13, "chunked")):
        piece = {name: x[:, start : start + length] if x.dim() > 2 else x for name, x in given.items()}
        y, state = trapezoidal_scan(**piece, state=state, provider=provider)
        ys.append(y)
        start += length
    torch.testing.assert_close(torch.cat(ys, 1), whole)


class InFloat32(types.SimpleNamespace):
    """torch for the kernels' files, with float32 for bfloat16."""

    bfloat16 = torch.float32

    def __getattr__(self, name: str):
        return getattr(torch, name)


@pytest.fixture(params=["stand-in", OWN_CODE])
def siso(request, monkeypatch):
    """The authors' kernels, computing in float32."""
    kernel = cuda_stand_ins.mamba3_siso_combined
    if request.param == "own code":
        if interpreter.reason():
            pytest.skip(interpreter.reason())
        interpreter.prepare()
        package = types.ModuleType("mamba_ssm")
        package.__path__ = [str(Path(SOURCES) / "mamba_ssm")]
        monkeypatch.setitem(sys.modules, "mamba_ssm", package)
        place = "mamba_ssm.ops.triton.mamba3.mamba3_siso"
        found, forward = (import_module(f"{place}_{part}") for part in ("combined", "fwd"))
        assert (
            inspect.signature(found.mamba3_siso_combined).parameters.keys()
            == inspect.signature(kernel).parameters.keys()
        )
        for one in (found, forward):
            monkeypatch.setattr(one, "torch", InFloat32())
        monkeypatch.setattr(torch.Tensor, "is_cuda", True)  # what the backward pass asserts
        kernel = found.mamba3_siso_combined
    calls = []

    def called(*given, **named):
        calls.append(named)
        return kernel(*given, **named)

    monkeypatch.setattr(mamba_ssm, "require", lambda provider, like: None)
    monkeypatch.setattr(mamba_ssm, "KIND", torch.float32)
    monkeypatch.setattr(mamba_ssm, "kernel_of", lambda module, name: called)
    return calls


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("time, carried", [(1, True), (7, False), (70, True)])
def test_the_authors_kernels_are_the_law_with_all_gradients(siso, time, carried, shared):
    agree(mamba_ssm.trapezoidal_scan, inputs(time, carried, torch.float32, shared), 1e-5)
    assert len(siso) == 1


@pytest.mark.parametrize("change", ["float32", "width"])
def test_what_the_kernels_do_not_compute_goes_to_the_packages_scan(monkeypatch, change):
    given = inputs(9, True, torch.float32)
    if change == "width":
        given["v"], given["matrix"], given["last v"] = (given[name][..., :20] for name in ("v", "matrix", "last v"))
        monkeypatch.setattr(mamba_ssm, "KIND", torch.float32)
    monkeypatch.setattr(mamba_ssm, "require", lambda provider, like: None)
    monkeypatch.setattr(mamba_ssm, "kernel_of", None)
    monkeypatch.setattr(mamba_ssm, "scan", by_scan.chunked_scan)
    agree(mamba_ssm.trapezoidal_scan, given, 1e-5)


def test_float64_and_a_cpu_are_refused():
    for kind in (torch.float64, torch.float32):
        given = inputs(3, False, kind)
        with pytest.raises(NotCovered, match="float64" if kind == torch.float64 else "CUDA tensors, not on cpu"):
            mamba_ssm.trapezoidal_scan(**given)
