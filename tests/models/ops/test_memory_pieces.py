"""The memory of large layers, many tokens at once in C, held to the law token by token, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.native_build import compiler, library
from models.ops.neural_memory import deep_memory, native
from models.ops.neural_memory.recurrence import Rule, State, recurrence
from models.ops.providers import watch

# All widths are multiples of 16: they fill the vectors of every processor, up to 512 bits of float32.
BATCH, HEADS = 2, 3
ERRORS = {torch.float64: (1e-13, 1e-12), torch.float32: (2e-6, 1e-5)}  # of outputs, of gradients
RULES = [Rule(16), Rule(24, "silu"), Rule(70), Rule(100, exclusive=True), Rule(1000, "silu", exclusive=True)]
pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Weights of any size go in pieces, and nothing else computes them."""
    monkeypatch.setattr(native, "FROM", 0)
    found = []

    def told(source, *rest, **macros):
        found.append(source.name)
        return library(source, *rest, **macros)

    monkeypatch.setattr(native, "library", told)
    yield
    assert set(found) == {"native_pieces.c"}


def given(
    time: int, widths: tuple[int, ...], layers: int = 1, kind: str = "mixed", dtype=torch.float64
) -> dict[str, Tensor]:
    torch.manual_seed(time)
    shape = (BATCH, time, HEADS) if layers == 1 else (BATCH, time, HEADS, layers)
    keep = 1 - torch.rand(shape) ** 4
    momentum = 0.95 * torch.rand(shape)
    if kind == "ends":
        keep = torch.where(torch.rand(shape) < 0.3, torch.rand(shape).round(), keep)
        momentum = torch.where(torch.rand(shape) < 0.3, torch.zeros(()), momentum)
    rate = (0.0 if kind == "closed" else 0.3) * torch.rand(shape) * (1 - momentum)
    q, k, v = (torch.randn(BATCH, time, HEADS, width) / width**0.5 for width in (widths[0], widths[0], widths[-1]))
    found = {"q": q, "k": k, "v": v, "momentum": momentum, "rate": rate, "keep": keep}
    return {name: x.to(dtype) for name, x in found.items()}


def weights(widths: tuple[int, ...], dtype=torch.float64) -> tuple[Tensor, ...]:
    return tuple(torch.randn(HEADS, a, b, dtype=dtype) / a**0.5 for a, b in zip(widths, widths[1:], strict=False))


def read(
    form, tokens: dict[str, Tensor], initial: tuple[Tensor, ...], rule: Rule, cuts: list[int]
) -> tuple[Tensor, State]:
    ys, state, start = [], None, 0
    for size in cuts:
        y, state = form(
            **{name: x[:, start : start + size] for name, x in tokens.items()}, initial=initial, rule=rule, state=state
        )
        ys, start = [*ys, y], start + size
    return torch.cat(ys, 1), state


def with_gradients(
    form, tokens: dict[str, Tensor], initial: tuple[Tensor, ...], rule: Rule, cuts: list[int]
) -> list[list[Tensor]]:
    """Outputs with the last state, and what a loss upon all of them gives each input."""
    own = {name: x.clone().requires_grad_() for name, x in tokens.items()}
    learned = tuple(w.clone().requires_grad_() for w in initial)
    y, state = read(form, own, learned, rule, cuts)
    outputs = [y, *state[0], *state[1]]
    torch.manual_seed(0)
    loss = sum((x * torch.randn(x.shape, dtype=torch.float64).to(x.dtype)).sum() for x in outputs)
    return [outputs, [*torch.autograd.grad(loss, [*own.values(), *learned], materialize_grads=True, allow_unused=True)]]


def largest(found: list[Tensor], right: list[Tensor]) -> float:
    return max(
        float((a.detach().double() - b.detach()).norm() / (b.detach().norm() + 1e-30))
        for a, b in zip(found, right, strict=True)
    )


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    ("time", "widths", "layers"),
    [(70, (32, 16), 1), (1, (32, 16, 48), 1), (33, (16, 48, 32), 2), (95, (16, 32, 16), 1), (70, (16, 32, 32, 48), 3)],
)
def test_pieces_are_the_law(time, widths, layers, rule, dtype):
    tokens, initial = given(time, widths, layers), weights(widths)
    right = with_gradients(recurrence, tokens, initial, rule, [time])
    found = with_gradients(
        native.native, {n: x.to(dtype) for n, x in tokens.items()}, tuple(w.to(dtype) for w in initial), rule, [time]
    )
    for own, law, most in zip(found, right, ERRORS[dtype], strict=True):
        assert largest(own, law) < most


@pytest.mark.parametrize("kind", ["ends", "closed"])
@pytest.mark.parametrize("rule", RULES[1:4], ids=str)
def test_a_text_in_parts_is_the_whole_whatever_its_gates(rule, kind):
    widths = (16, 32, 16)
    tokens, initial = given(90, widths, 1, kind), weights(widths)
    right = with_gradients(recurrence, tokens, initial, rule, [90])
    found = with_gradients(native.native, tokens, initial, rule, [1, 40, 0, 9, 40])
    for own, law, most in zip(found, right, ERRORS[torch.float64], strict=True):
        assert largest(own, law) < most


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize("kind", ["mixed", "ends"])
@pytest.mark.parametrize("rule", [Rule(1), Rule(1, exclusive=True), Rule(3), Rule(15)], ids=str)
def test_a_matrix_whose_anchors_lie_inside_a_piece_is_the_law(rule, kind, dtype):
    widths = (32, 16)
    tokens, initial = given(75, widths, 1, kind), weights(widths)
    right = with_gradients(recurrence, tokens, initial, rule, [75])
    tokens, initial = {name: x.to(dtype) for name, x in tokens.items()}, tuple(w.to(dtype) for w in initial)
    for cuts in ([75], [1, 40, 0, 30, 4]):
        found = with_gradients(native.native, tokens, initial, rule, cuts)
        for own, law, most in zip(found, right, ERRORS[dtype], strict=True):
            assert largest(own, law) < most


def test_it_reads_without_a_gradient_too():
    widths = (16, 32, 16)
    tokens, initial = given(130, widths), weights(widths)
    with torch.no_grad():
        y, state = native.native(**tokens, initial=initial, rule=Rule(48))
    right, last = recurrence(**tokens, initial=initial, rule=Rule(48))
    assert largest([y, *state[0], *state[1]], [right, *last[0], *last[1]]) < 1e-13


def test_two_threads_give_the_digits_of_one():
    widths = (16, 32, 16)
    tokens, initial = given(50, widths), weights(widths)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(with_gradients(native.native, tokens, initial, Rule(32), [50]))
    torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert all(map(torch.equal, one, two))


@pytest.mark.parametrize(("widths", "dtype"), [((64, 256, 64), torch.float32), ((48, 400, 48), torch.bfloat16)])
def test_auto_trains_large_layers_in_pieces(monkeypatch, widths, dtype):
    """Token by token they are slower than chunks, which were taken before. Half precision is computed in float32."""
    monkeypatch.setattr(native, "FROM", 1 << 12)
    tokens, initial = given(20, widths, dtype=dtype), weights(widths, dtype)
    with watch() as ran:
        deep_memory(**{name: x.requires_grad_() for name, x in tokens.items()}, initial=initial, rule=Rule(64))
    assert ran == {"native"} and native.is_slower_at(2 * widths[0] * widths[1], 64)
