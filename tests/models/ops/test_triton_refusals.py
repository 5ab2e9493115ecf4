"""What the Triton kernels do not compute, or cannot run on, they refuse in one sentence; nothing else runs in their place."""

from __future__ import annotations

import pytest
import torch

from models.ops import providers
from models.ops.neural_memory.recurrence import Rule
from models.ops.neural_memory.triton import forms


def ask(form, sizes: tuple[int, ...] = (16, 16), rule=None, dtype=torch.float32, **gates):
    q = torch.zeros(1, 4, 1, sizes[0], dtype=dtype)
    v = torch.zeros(1, 4, 1, sizes[-1], dtype=dtype)
    gate = torch.zeros(1, 4, 1, dtype=dtype)
    initial = tuple(torch.zeros(1, a, b) for a, b in zip(sizes, sizes[1:], strict=False))
    named = {"momentum": gate, "rate": gate, "keep": gate, **gates}
    return form(q, q, v, initial=initial, rule=rule or Rule(), **named)


@pytest.mark.parametrize("operation", ["linear memory", "deep memory"])
def test_absent_triton_is_an_error(operation: str, monkeypatch):
    monkeypatch.setattr(providers, "_missing", lambda provider: "triton")
    with pytest.raises(providers.ProviderAbsent, match="needs the module triton, which is not installed: pip install"):
        providers.operations()[operation].form("triton")


def test_a_machine_without_cuda_is_an_error(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(providers.NotCovered, match="CUDA tensors, not on cpu"):
        ask(forms.linear)


@pytest.mark.parametrize(
    ("form", "given", "said"),
    [
        ("linear", {"sizes": (16, 16, 16)}, "a single matrix"),
        ("linear", {"rule": Rule(residual=True)}, "without residual"),
        ("linear", {"keep": torch.zeros(1, 4, 1, 16)}, "one gate a head"),
        ("linear", {"dtype": torch.float64}, "no float64 kernels"),
        ("linear", {"rule": Rule(chunk=128)}, "chunks up to 64 tokens, not 128"),
        ("linear", {"sizes": (256, 256)}, "widths up to 128 a head here, not 256"),
        ("deep", {"sizes": (16, 16, 16, 16)}, "two layers"),
        ("deep", {"sizes": (16, 64, 16)}, "one width, 16, 32 or 64"),
        ("deep", {"sizes": (16, 16, 16), "rule": Rule(decayed=True)}, "not decayed"),
        ("deep", {"sizes": (16, 16, 16), "rate": torch.zeros(1, 4, 1, 2)}, "one gate a head"),
    ],
)
def test_what_the_kernels_do_not_compute_is_an_error(form: str, given: dict, said: str, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(providers.NotCovered, match=said):
        ask(getattr(forms, form), **given)
