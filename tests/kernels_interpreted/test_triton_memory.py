"""Our Triton kernels against the recurrence in float64, forward and every gradient: in Triton's interpreter, or on a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed (make test-kernels)")
# Set here, it would come too late where something else has imported Triton before.
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("without a GPU these tests need TRITON_INTERPRET=1 (make test-kernels)", allow_module_level=True)

from models.ops.neural_memory.recurrence import Rule, recurrence  # noqa: E402
from models.ops.neural_memory.triton import forms  # noqa: E402

BATCH, HEADS = 1, 2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Relative errors, forward and of gradients: of float32 sums; of inputs and outputs rounded to half precision and TF32 products.
BOUNDS = {torch.float32: (2e-6, 1e-5), torch.float16: (2e-3, 5e-3), torch.bfloat16: (1.5e-2, 3e-2)}
HALVES = (
    [torch.float16] if DEVICE == "cpu" else [torch.float16, torch.bfloat16]
)  # the interpreter's bfloat16 products are wrong
HERE = Path(__file__).parent


def gates(kind: str, shape: tuple[int, ...], bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Momentum, rate, keep."""
    momentum, keep = 0.97 * torch.rand(shape), 1 - torch.rand(shape) ** 4
    rate = bound * torch.rand(shape) * (1 - momentum)
    if kind == "ends":
        momentum = torch.where(torch.rand(shape) < 0.3, 0.0, momentum)
        keep = torch.where(torch.rand(shape) < 0.3, torch.rand(shape).round(), keep)
        rate = torch.where(torch.rand(shape) < 0.2, 0.0, rate)
    if kind == "all kept":
        momentum, keep = torch.zeros(shape), torch.ones(shape)
    if kind == "all forgotten":
        keep = torch.zeros(shape)
    return momentum, rate, keep


def question(time: int, sizes: list[int], kind: str, bound: float, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v, momentum, rate, keep and the first weights: float64 numbers that `dtype` holds exactly."""
    torch.manual_seed(0)
    q, k = (torch.nn.functional.normalize(torch.randn(BATCH, time, HEADS, sizes[0]), dim=-1) for _ in range(2))
    v = torch.nn.functional.normalize(torch.randn(BATCH, time, HEADS, sizes[-1]), dim=-1)
    weights = [torch.randn(HEADS, a, b) * a**-0.5 for a, b in zip(sizes, sizes[1:], strict=False)]
    text = (q, k, v, *gates(kind, (BATCH, time, HEADS), bound))
    return [x.to(dtype).double() for x in text] + [w.double() for w in weights]


def answer(form, given: list[Tensor], rule: Rule, pieces: list[int], dtype: torch.dtype, device: str):
    """Outputs with the last state, and the gradients of a fixed random combination of them; the text read in pieces."""
    own = [
        x.clone().to(device, dtype if i < 6 else torch.promote_types(dtype, torch.float32)) for i, x in enumerate(given)
    ]
    own = [x.detach().requires_grad_() for x in own]
    ys, state = [], None
    for text in zip(*(x.split(pieces, 1) for x in own[:6]), strict=True):
        named = dict(zip(("momentum", "rate", "keep"), text[3:], strict=True))
        y, state = form(*text[:3], **named, initial=tuple(own[6:]), rule=rule, state=state)
        ys.append(y)
    values = [torch.cat(ys, 1), *(part for group in state for part in group)]
    seeded = torch.Generator().manual_seed(1)
    draws = [torch.randn(x.shape, generator=seeded).to(x.device) for x in values]
    sum((x * draw).sum() for x, draw in zip(values, draws, strict=True)).backward()
    return [x.detach().cpu().double() for x in values], [x.grad.cpu().double() for x in own]


def agree(form, sizes: list[int], rule: Rule, pieces: list[int], kind="mixed", bound=0.2, dtype=torch.float32) -> None:
    given = question(sum(pieces), sizes, kind, bound, dtype)
    expected = answer(recurrence, given, rule, [sum(pieces)], torch.float64, "cpu")
    got = answer(form, given, rule, pieces, dtype, DEVICE)
    for group, (theirs, ours, error) in enumerate(zip(expected, got, BOUNDS[dtype], strict=True)):
        for index, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            assert a.shape == b.shape
            assert (a - b).norm() <= error * a.norm() + 1e-12, (group, index, ((a - b).norm() / a.norm()).item())


@pytest.mark.parametrize("kind", ["mixed", "ends", "all kept", "all forgotten"])
@pytest.mark.parametrize("chunk", [16, 1])
def test_linear_memory(chunk: int, kind: str):
    agree(forms.linear, [16, 16], Rule(chunk=chunk), [19, 8], kind, bound=1.0 if chunk == 1 else 0.2)


@pytest.mark.parametrize(
    "rule", [Rule(chunk=4), Rule(chunk=1, decayed=True), Rule(chunk=16, exclusive=True), Rule(chunk=32)], ids=str
)
def test_linear_memory_of_other_rules_and_odd_widths(rule: Rule):
    agree(forms.linear, [12, 20], rule, [1, 29, 3])


@pytest.mark.parametrize("kind", ["mixed", "ends", "all kept", "all forgotten"])
def test_two_layers(kind: str):
    agree(forms.deep, [16, 16, 16], Rule(chunk=16), [19, 8], kind, bound=0.1)


def test_two_layers_at_the_width_of_a_head_silu_and_exclusive():
    agree(forms.deep, [64, 64, 64], Rule(chunk=16, activation="silu", exclusive=True), [17, 3], bound=0.1)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision(dtype: torch.dtype):
    agree(forms.linear, [16, 16], Rule(chunk=16), [19], dtype=dtype)
    agree(forms.linear, [16, 16], Rule(chunk=1), [19], dtype=dtype)
    agree(forms.deep, [16, 16, 16], Rule(chunk=16), [19], bound=0.1, dtype=dtype)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_on_a_gpu_at_full_size(dtype: torch.dtype):
    for chunk in (64, 1):
        agree(forms.linear, [64, 64], Rule(chunk=chunk), [130, 67], dtype=dtype, bound=0.05)
    agree(forms.linear, [128, 128], Rule(chunk=64), [130, 67], dtype=dtype, bound=0.05)
    agree(forms.deep, [64, 64, 64], Rule(chunk=64), [130, 67], dtype=dtype, bound=0.02)


SHARED = 227 * 1024  # bytes that one program may have on an H100
KERNELS = ["read.scan", "read.scan_backward", "read.read", "read.read_backward"]
KERNELS += ["linear.chunk_loop", "linear.chunk_loop_backward", "deep.chunk_loop", "deep.chunk_loop_backward"]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiles_for_an_h100(kernel: str):
    wanted = [f"{kernel},{dtype},64,64" for dtype in ("fp32", "bf16")]
    if kernel.startswith("linear") or kernel.startswith("read.read"):
        wanted += [f"{kernel},{dtype},128,64" for dtype in ("fp32", "bf16")]
    run = subprocess.run(
        [sys.executable, str(HERE / "compile_kernel.py"), *wanted],
        env={**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    resources = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(resources) == len(wanted)
    for each in resources:
        assert each["shared"] <= SHARED, each
