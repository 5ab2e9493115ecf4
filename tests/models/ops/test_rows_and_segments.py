"""Compiled pieces of a layer: residual sums with their norm, SwiGLU's gate, attention inside a segment; against PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import rotary, split_heads
from models.ops import native_build
from models.ops.dense import rows
from models.ops.dense.rows import added, gated, unit
from models.ops.softmax_attention import softmax_attention
from models.ops.softmax_attention.segment import across, inside

needs_compiler = pytest.mark.skipif(not native_build.compiler(), reason="no C compiler")
EPS = 1e-6


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def attention(qkv: Tensor, heads: int) -> Tensor:
    q, k, v = (split_heads(part, heads) for part in qkv.chunk(3, -1))
    return softmax_attention(rotary(q, 0), rotary(k, 0), v, provider="recurrence").flatten(2)


def read(q: Tensor, held: Tensor, heads: int) -> Tensor:
    q, k, v = (split_heads(part, heads) for part in (q, *held.chunk(2, -1)))
    scores = torch.einsum("bthd,bjhd->bhtj", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhtj,bjhd->bthd", scores.softmax(-1), v).flatten(2)


FORMS = {
    "unit": (lambda x: unit(x, EPS), normed, [(3, 5, 16)]),
    "added": (
        lambda x, y: torch.cat(added(x, y, EPS)),
        lambda x, y: torch.cat([x + y, normed(x + y)]),
        [(3, 5, 16)] * 2,
    ),
    "added, odd": (
        lambda x, y: torch.cat(added(x, y, EPS)),
        lambda x, y: torch.cat([x + y, normed(x + y)]),
        [(3, 7)] * 2,
    ),
    "gated": (gated, lambda x: F.silu(x[..., :21]) * x[..., 21:], [(3, 5, 42)]),
    "inside": (lambda x: inside(x, 2), lambda x: attention(x, 2), [(3, 29, 96)]),
    "inside, one row": (lambda x: inside(x, 2), lambda x: attention(x, 2), [(1, 1, 96)]),
    "inside, blocks": (lambda x: inside(x, 1), lambda x: attention(x, 1), [(2, 80, 48)]),
    "across": (lambda q, x: across(q, x, 2), lambda q, x: read(q, x, 2), [(3, 31, 32), (3, 13, 64)]),
    "across, few": (lambda q, x: across(q, x, 2), lambda q, x: read(q, x, 2), [(2, 3, 32), (2, 50, 64)]),
    "across, odd": (lambda q, x: across(q, x, 2), lambda q, x: read(q, x, 2), [(2, 3, 10), (2, 5, 20)]),
}


def drawn(name: str, kind: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(kind) for shape in FORMS[name][2]]


def answers(form, inputs: list[Tensor]) -> list[Tensor]:
    """What a form makes of inputs, and all gradients."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    y = form(*inputs)
    way = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * way).sum(), inputs)]


@needs_compiler
@pytest.mark.parametrize("kind, bound", [(torch.float64, 1e-13), (torch.float32, 2e-6)])
@pytest.mark.parametrize("name", FORMS)
def test_compiled_pieces_are_their_equations_with_all_gradients(name, kind, bound):
    form, plain, _ = FORMS[name]
    found, right = answers(form, drawn(name, kind)), answers(plain, drawn(name, torch.float64))
    assert all((one - other).norm() <= bound * (other.norm() + 1e-3) for one, other in zip(found, right, strict=True))


@needs_compiler
def test_keys_and_values_may_be_a_part_of_wider_rows():
    q, wide = torch.randn(2, 9, 32, dtype=torch.float64), torch.randn(2, 13, 160, dtype=torch.float64)
    found = answers(lambda x: across(q, x[..., 32:96], 2), [wide])
    right = answers(lambda x: read(q, x[..., 32:96], 2), [wide])
    assert all((one - other).norm() <= 1e-13 * other.norm() for one, other in zip(found, right, strict=True))


@needs_compiler
@pytest.mark.parametrize("name", ["added", "gated", "inside", "across"])
def test_number_of_threads_changes_no_digit(name):
    """At sizes that are shared among threads."""
    shapes = {
        "added": [(8, 256, 64)] * 2,
        "gated": [(8, 256, 64)],
        "inside": [(5, 64, 96)],
        "across": [(8, 64, 32), (8, 40, 64)],
    }
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in shapes[name]]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(answers(FORMS[name][0], inputs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for later in found[1:] for one, other in zip(found[0], later, strict=True))


@needs_compiler
def test_scores_far_apart_leave_no_hole():
    qkv = torch.randn(1, 30, 48)
    qkv[..., :32] *= 60
    assert all(one.isfinite().all() for one in answers(lambda x: inside(x, 1), [qkv]))


def test_what_is_not_covered_is_left_to_pytorch():
    assert inside(torch.randn(1, 4, 48).bfloat16(), 1) is None
    assert inside(torch.randn(1, 4, 30), 1) is None  # ten numbers a head fill no register
    assert inside(torch.randn(1, 257, 48), 1) is None  # shares of as many rows are not worth keeping
    for half in (unit(torch.randn(2, 16).bfloat16(), EPS), gated(torch.randn(2, 16).bfloat16())):
        assert half.dtype is torch.bfloat16


def test_without_a_compiler_pytorch_computes_the_same(monkeypatch, tmp_path):
    right = {name: answers(FORMS[name][1], drawn(name, torch.float64)) for name in ("unit", "added", "gated", "across")}
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    native_build.forget()
    try:
        assert rows._functions(torch.float64) is None and inside(torch.randn(1, 4, 48), 1) is None
        for name, wanted in right.items():
            found = answers(FORMS[name][0], drawn(name, torch.float64))
            assert all((one - other).norm() <= 1e-13 * other.norm() for one, other in zip(found, wanted, strict=True))
    finally:
        monkeypatch.undo()
        native_build.forget()
