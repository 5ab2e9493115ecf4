"""All layers of a segment in one compiled call, forward and back, against the same equations in PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import rotary, split_heads
from models.ops import native_build
from models.ops.segment_layers.native import MOST, Layer, Plan, covers, read_segments
from models.ops.softmax_attention import softmax_attention

needs_compiler = pytest.mark.skipif(not native_build.compiler(), reason="no C compiler")
EPS = 1e-5


class Form(NamedTuple):
    read: bool
    depth: int = 2
    segments: int = 3
    texts: int = 2
    rows: int = 9
    width: int = 32
    heads: int = 2
    units: int = 24
    memory: int = 4


FORMS = {
    "read": Form(True),
    "read, odd": Form(True, texts=3, rows=7, width=20, units=13, memory=3),
    "read, one row": Form(True, depth=1, segments=2, texts=1, rows=1, memory=1, units=1),
    "read, many": Form(True, segments=2, rows=70, memory=80, heads=1, units=90),
    "around": Form(False),
    "around, odd": Form(False, texts=1, rows=5, width=12, units=7, memory=3),
    "around, many": Form(False, segments=2, rows=40, memory=20),
}


def drawn(form: Form, kind: torch.dtype) -> list[Tensor]:
    """Segments, a memory, what carries it, and all layers' weights."""
    generator, D = torch.Generator().manual_seed(0), form.width
    inside = [(D,), (2 * D, D), (D, D), (D, D), (2 * form.units, D), (D,), (D, form.units)]
    reading = [(D,), (D, D), (2 * D, D), (D, D)] if form.read else []
    shapes = [(form.segments, form.texts, form.rows, D), (form.texts, form.memory, D), (D, D)]
    found = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    for shape in (inside + reading) * form.depth:
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        found.append(1 + 0.3 * weight if len(shape) == 1 else weight * shape[-1] ** -0.5)
    return [x.to(kind) for x in found]


def carried(form: Form, memory: Tensor, unit: Tensor, own: Tensor) -> Tensor:
    """In operators whose digits hang neither on the number of threads nor on whether gradients are asked for."""
    if form.read:
        return torch.tanh(memory * own[0] + unit[:, -1:] * own[1])
    return unit[:, -form.memory :] * own[0] + memory * own[1]


def layers_of(form: Form, weights: tuple[Tensor, ...]) -> list[Layer]:
    each = 11 if form.read else 7
    return [Layer(*weights[n * each : (n + 1) * each]) for n in range(form.depth)]


def compiled(form: Form, x: Tensor, memory: Tensor, own: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    plan = Plan(form.heads, EPS, form.read, lambda before, unit: carried(form, before, unit, own))
    return read_segments(x, memory, layers_of(form, weights), plan, [own])


def plain(form: Form, x: Tensor, memory: Tensor, own: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    units = []
    for piece in x:
        rows = piece if form.read else torch.cat([memory, piece, memory], 1)
        for layer in layers_of(form, weights):
            rows = rows + inside(form, layer, normed(rows) * layer.gain)
            if form.read:
                rows = rows + across(form, layer, normed(rows) * layer.ask_gain, memory)
            gate, up = ((normed(rows) * layer.feed_gain) @ layer.gate_up.T).chunk(2, -1)
            rows = rows + (F.silu(gate) * up) @ layer.down.T
        units.append(normed(rows))
        memory = carried(form, memory, units[-1], own)
    return torch.stack(units), memory


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def inside(form: Form, layer: Layer, x: Tensor) -> Tensor:
    parts = *(x @ layer.query_key.T).chunk(2, -1), x @ layer.value.T
    q, k, v = (split_heads(part, form.heads) for part in parts)
    return softmax_attention(rotary(q, 0), rotary(k, 0), v, provider="recurrence").flatten(2) @ layer.out.T


def across(form: Form, layer: Layer, x: Tensor, memory: Tensor) -> Tensor:
    q, k, v = (split_heads(part, form.heads) for part in (x @ layer.ask.T, *(memory @ layer.held.T).chunk(2, -1)))
    scores = torch.einsum("bthd,bjhd->bhtj", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhtj,bjhd->bthd", scores.softmax(-1), v).flatten(2) @ layer.find.T


def answers(function, form: Form, inputs: list[Tensor], ends: tuple[bool, bool] = (True, True)) -> list[Tensor]:
    """Unit rows, the last memory, and the gradients of everything from those of the `ends` that are heard."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    made = function(form, *inputs)
    generator = torch.Generator().manual_seed(1)
    ways = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in made]
    loss = sum((y * way).sum() for y, way, heard in zip(made, ways, ends, strict=True) if heard)
    return [*(y.detach() for y in made), *torch.autograd.grad(loss, inputs)]


def alike(found: list[Tensor], right: list[Tensor], bound: float) -> bool:
    return all((one - other).norm() <= bound * (other.norm() + 1e-3) for one, other in zip(found, right, strict=True))


@needs_compiler
@pytest.mark.parametrize("kind, bound", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", FORMS)
def test_compiled_layers_are_their_equations_with_all_gradients(name, kind, bound):
    form = FORMS[name]
    found, right = answers(compiled, form, drawn(form, kind)), answers(plain, form, drawn(form, torch.float64))
    assert alike(found, right, bound)


@needs_compiler
@pytest.mark.parametrize("ends", [(True, False), (False, True)])
@pytest.mark.parametrize("name", ["read", "around"])
def test_rows_alone_or_the_memory_alone_may_be_heard(name, ends):
    form, inputs = FORMS[name], drawn(FORMS[name], torch.float64)
    assert alike(answers(compiled, form, inputs, ends), answers(plain, form, inputs, ends), 1e-12)


@needs_compiler
@pytest.mark.parametrize("name", ["read", "around"])
def test_weights_that_stay_as_they_are_need_no_gradient(name):
    form, inputs = FORMS[name], drawn(FORMS[name], torch.float64)
    right = answers(plain, form, inputs)
    x = inputs[0].clone().requires_grad_()
    units, memory = compiled(form, x, *inputs[1:])
    generator = torch.Generator().manual_seed(1)
    ways = [torch.randn(y.shape, generator=generator, dtype=torch.float64) for y in (units, memory)]
    (found,) = torch.autograd.grad((units * ways[0]).sum() + (memory * ways[1]).sum(), x)
    assert alike([found], [right[2]], 1e-12)


@needs_compiler
@pytest.mark.parametrize("name", ["read", "around"])
def test_without_a_gradient_it_is_the_same(name):
    form, inputs = FORMS[name], drawn(FORMS[name], torch.float32)
    trained = compiled(form, *(x.clone().requires_grad_() for x in inputs))
    with torch.no_grad():
        plainly = compiled(form, *(x.clone().requires_grad_() for x in inputs))
    assert all(torch.equal(one, other) and not other.requires_grad for one, other in zip(trained, plainly, strict=True))


@needs_compiler
@pytest.mark.parametrize("name", ["read, odd", "read, many", "around"])
def test_number_of_threads_changes_no_digit_of_rows_and_memories(name):
    form, before, found = FORMS[name], torch.get_num_threads(), []
    inputs = drawn(form, torch.float32)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(answers(compiled, form, inputs)[:4])  # weights have theirs from torch
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for later in found[1:] for one, other in zip(found[0], later, strict=True))


@needs_compiler
def test_segments_may_lie_in_rows_of_a_text():
    form = FORMS["read"]
    x, *rest = drawn(form, torch.float64)
    text = x.transpose(0, 1).contiguous()  # [b, n, r, D]
    found = answers(lambda f, y, *own: compiled(f, y.transpose(0, 1), *own), form, [text, *rest])
    right = answers(compiled, form, [x, *rest])
    right[2] = right[2].transpose(0, 1)
    assert alike(found, right, 1e-13)


def test_what_is_not_covered_is_said():
    x = torch.randn(2, 3, 32)
    assert not covers(x.bfloat16(), 2, 8) and not covers(x[..., :30], 2, 8) and not covers(x, 2, MOST + 1)
    assert covers(x, 2, 8) == bool(native_build.compiler())


def test_without_a_compiler_nothing_is_covered(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    native_build.forget()
    try:
        assert not covers(torch.randn(2, 3, 32), 2, 8)
    finally:
        monkeypatch.undo()
        native_build.forget()
