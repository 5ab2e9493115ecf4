"""Attention in a window: the compiled form and PyTorch's against the law, any widths and lengths, with all gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.attention.local_attention import LocalAttention
from models.attention import window_attention
from models.ops import native_build
from models.ops.providers import NotCovered, probing, watch
from models.ops.softmax_attention import softmax_attention, windowed_attention
from models.titans.window import PrefixedWindow

needs_compiler = pytest.mark.skipif(not native_build.compiler(), reason="no C compiler is here")
FORMS = ["sdpa", pytest.param("native", marks=needs_compiler)]
# batch, tokens, keys before them, window, rows and keys of the prefix, whether it has a query, widths of keys and values
SHAPES = [
    (2, 29, 0, 8, (1, 3), False, 4, 4),
    (2, 37, 7, 8, (2, 3), True, 16, 16),
    (1, 5, 30, 8, (1, 1), True, 6, 10),
    (2, 70, 63, 64, (0, 0), False, 32, 32),
    (1, 33, 0, 1, (0, 0), False, 8, 8),
    (3, 17, 2, 1, (1, 5), True, 3, 7),
    (2, 40, 3, 100, (2, 2), True, 8, 24),
    (1, 1, 0, 5, (0, 0), False, 2, 1),
    (1, 130, 0, 50, (1, 4), True, 40, 12),
]


def given(
    batch: int, time: int, before: int, prefix: tuple[int, int], asked: bool, keys: int, values: int
) -> dict[str, Tensor]:
    """q, k and v, and those of a prefix."""
    draw = torch.Generator().manual_seed(time)
    sizes = {"q": (batch, time, keys), "k": (batch, before + time, keys), "v": (batch, before + time, values)}
    if prefix[1]:
        sizes |= {"prefix_k": (*prefix, keys), "prefix_v": (*prefix, values)}
        sizes |= {"prefix_query": (batch, time, keys)} if asked else {}
    drawn = {name: torch.randn(a, b, 3, c, generator=draw, dtype=torch.float64) for name, (a, b, c) in sizes.items()}
    return drawn | {name: 2 * drawn[name] for name in ("q", "prefix_query") if name in drawn}


def ask(provider: str, x: dict[str, Tensor], window: int) -> Tensor:
    prefix = (x["prefix_k"], x["prefix_v"]) if "prefix_k" in x else None
    named = {"window": window, "prefix": prefix, "prefix_query": x.get("prefix_query")}
    return windowed_attention(x["q"], x["k"], x["v"], **named, provider=provider)


def answers(provider: str, inputs: dict[str, Tensor], window: int, kind: torch.dtype) -> list[Tensor]:
    """The form's answer, and all gradients of a random sum of it."""
    leaves = {name: x.to(kind, copy=True).requires_grad_() for name, x in inputs.items()}
    y = ask(provider, leaves, window)
    assert y.dtype is kind
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(kind)
    return [y.detach(), *torch.autograd.grad(y, list(leaves.values()), slope)]


def close(found: list[Tensor], right: list[Tensor], bound: float) -> bool:
    size = max(
        x.norm() for x in right
    )  # a gradient may be all rounding: one key alone has the share 1 whatever is asked
    return all((a - b).norm() <= bound * max(b.norm(), 0.1 * size) for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_form_is_the_law_with_all_gradients(shape, form):
    window = shape[3]
    inputs = given(*shape[:3], *shape[4:])
    right = answers("recurrence", inputs, window, torch.float64)
    assert close(answers(form, inputs, window, torch.float64), right, 1e-12)
    assert close(answers(form, inputs, window, torch.float32), right, 1e-5)


@needs_compiler
def test_logits_far_apart_leave_no_hole():
    """Shares of 1 and 0 to the last digit, in float32, whichever of prefix and window has them."""
    inputs = given(2, 37, 7, (1, 3), True, 16, 16)
    inputs |= {"q": 300 * inputs["q"], "prefix_query": 300 * inputs["prefix_query"]}
    inputs = {name: x.float().double() for name, x in inputs.items()}
    right = answers("recurrence", inputs, 8, torch.float64)
    assert close(answers("native", inputs, 8, torch.float64), right, 1e-11)
    found = answers("native", inputs, 8, torch.float32)
    assert all(x.isfinite().all() for x in found) and close(found[:1], right[:1], 1e-3)


@needs_compiler
def test_one_head_of_keys_serves_all_queries_without_copies_and_parts_of_a_row_are_read_in_place():
    torch.manual_seed(0)
    qkv = torch.randn(2, 50, 5 * 8, dtype=torch.float64, requires_grad=True)
    q, k, v = qkv.split([3 * 8, 8, 8], -1)
    q, k, v = q.unflatten(-1, (3, 8)), *(x[:, :, None].expand(-1, -1, 3, -1) for x in (k, v))
    found, right = (
        [y, *torch.autograd.grad((y * y.detach().cos()).sum(), qkv)]
        for y in (windowed_attention(q, k, v, window=9, provider=name) for name in ("native", "recurrence"))
    )
    assert close(found, right, 1e-12)


@pytest.mark.parametrize("form", ["recurrence", *FORMS])
@pytest.mark.parametrize("shape", [(0, 5), (2, 0)], ids=str)
def test_nothing_to_read_gives_nothing(form, shape):
    q = torch.randn(*shape, 3, 8, requires_grad=True)
    y = windowed_attention(q, q, q, window=4, provider=form)
    assert y.shape == q.shape


@pytest.mark.parametrize("form", FORMS)
def test_a_prefix_without_keys_is_none(form):
    q, asked, *others = (x.requires_grad_() for x in torch.randn(4, 2, 20, 3, 8, dtype=torch.float64))
    none = tuple(x[:, :0] for x in others)
    answers = [windowed_attention(q, *others, window=4, prefix=none, prefix_query=asked, provider=form)]
    answers.append(windowed_attention(q, *others, window=4, provider="recurrence"))
    found, right = (torch.autograd.grad(y.cos().sum(), (q, *others, asked), allow_unused=True) for y in answers)
    assert close([answers[0], *found[:3]], [answers[1], *right[:3]], 1e-12)
    assert found[3] is None or not found[3].any()


@needs_compiler
@pytest.mark.parametrize("batch", [1, 3])
def test_number_of_threads_changes_no_digit(batch):
    inputs, before, found = given(batch, 200, 5, (1, 4), True, 24, 24), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(answers("native", inputs, 30, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@needs_compiler
def test_half_precision_is_computed_in_float32_and_wrong_shapes_are_named():
    inputs = given(2, 20, 0, (1, 3), True, 8, 8)
    half = {name: x.bfloat16() for name, x in inputs.items()}
    right = ask("native", {name: x.float() for name, x in half.items()}, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ask("native", half, 6), right.bfloat16())
    for name, x in inputs.items():
        with pytest.raises(ValueError, match=rf"({name}|k|prefix_v) has the shape"):
            ask("native", inputs | {name: x[:, :, :2]}, 6)
    with pytest.raises(ValueError, match="k has the shape"):
        ask("native", inputs | {"k": inputs["k"][:, :-1]}, 6)


@needs_compiler
def test_auto_takes_c_on_a_cpu_and_pytorch_for_what_is_only_tried_out():
    inputs = given(1, 20, 0, (0, 0), False, 8, 8)
    with watch() as ran:
        ask("auto", inputs, 6)
        softmax_attention(inputs["q"], inputs["k"], inputs["v"])
    assert ran == {"native", "sdpa"}
    with watch() as ran, probing():
        found = ask("auto", inputs, 6)
    torch.testing.assert_close(found, ask("sdpa", inputs, 6))


@pytest.fixture
def without_compiler(monkeypatch, tmp_path):
    """A machine without a compiler, whose cache is empty."""
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    native_build.forget()
    yield
    native_build.forget()


def test_without_a_compiler_auto_goes_on_with_pytorch(without_compiler):
    inputs = given(1, 20, 0, (1, 3), True, 8, 8)
    with watch() as ran:
        found = ask("auto", inputs, 6)
    assert ran == {"sdpa"}
    torch.testing.assert_close(found, ask("sdpa", inputs, 6))
    with pytest.raises(NotCovered, match="needs a C compiler"):
        ask("native", inputs, 6)


@needs_compiler
@pytest.mark.parametrize("cuts", [[40], [1, 39], [7, 1, 20, 12]], ids=str)
@pytest.mark.parametrize("window", [1, 6, 64])
def test_pieces_are_the_text_with_all_gradients(cuts, window):
    inputs = given(2, 40, 0, (1, 3), True, 8, 8)
    prefix = tuple(inputs[name].requires_grad_() for name in ("prefix_k", "prefix_v"))
    own = [inputs[name].requires_grad_() for name in ("q", "k", "v", "prefix_query")]
    past, found = None, []
    for q, k, v, asked in zip(*(x.split(cuts, 1) for x in own), strict=True):
        y, past = window_attention(q, k, v, window, past, prefix, "native", asked)
        found.append(y)
    assert past[0].shape[1] == min(window - 1, 40)
    found, right = torch.cat(found, 1), ask("recurrence", inputs, window)
    slopes = [torch.autograd.grad(y.cos().sum(), list(inputs.values())) for y in (found, right)]
    assert close([found, *slopes[0]], [right, *slopes[1]], 1e-12)


@needs_compiler
@pytest.mark.parametrize("pieces", [[43], [10, 30, 1, 2]], ids=str)
def test_titans_window_is_the_law_of_its_two_queries(pieces, monkeypatch):
    torch.manual_seed(0)
    layer, x = PrefixedWindow(16, 2, 16, 6, 3).double(), torch.randn(2, 43, 16, dtype=torch.float64)
    answers = []
    for provider in ("recurrence", "native"):
        monkeypatch.setattr(
            "models.titans.window.window_attention", lambda *a, p=provider, **b: window_attention(*a, **b, provider=p)
        )
        state, ys = None, []
        for piece in x.split(pieces, 1):
            y, state = layer(piece, state)
            ys.append(y)
        ys = torch.cat(ys, 1)
        answers.append([ys, *torch.autograd.grad(ys.square().sum(), list(layer.parameters()))])
    assert close(answers[1], answers[0], 1e-12)


@needs_compiler
def test_local_attention_computes_the_same_compiled():
    layers, x = [], torch.randn(2, 31, 16)
    for name in ("sdpa", "native"):
        torch.manual_seed(0)
        layers.append(LocalAttention(16, 2, 6, provider=name))
    state, last = None, None
    for piece in x.split([13, 1, 17], 1):
        last, state = layers[1](piece, state)
    torch.testing.assert_close(last, layers[0](x)[0][:, 14:], rtol=1e-5, atol=1e-5)
