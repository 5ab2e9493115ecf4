"""The memory's recurrence against arithmetic and the delta rule; its fast forms against it, both ways, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.native_build import compiler
from models.ops.neural_memory import chunked_deep as deep
from models.ops.neural_memory import chunked_linear as linear
from models.ops.neural_memory import linear_blocks
from models.ops.neural_memory.native import LARGEST, is_slower, native
from models.ops.neural_memory.recurrence import Rule, State, network, recurrence
from models.ops.providers import NotCovered
from models.ops.scan import recurrence as matrix

BATCH, HEADS, WIDTH = 2, 2, 6
COMPILED = pytest.param(native, marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))
LINEAR, DEEP = [linear.chunked, COMPILED], [deep.chunked, COMPILED]
FORWARD, BACKWARD = 1e-10, 1e-8


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


def gates(kind: str, shape: tuple[int, ...], bound: float) -> dict[str, Tensor]:
    """Momentum, rate and keep of one kind; `bound` is the largest rate at no momentum."""
    momentum = 0.97 * torch.rand(shape, dtype=torch.float64)
    keep = 1 - torch.rand(shape, dtype=torch.float64) ** 4
    if kind == "ends":  # exact zeros and ones among them
        momentum = torch.where(torch.rand(shape) < 0.3, torch.zeros(()).double(), momentum)
        keep = torch.where(torch.rand(shape) < 0.2, torch.rand(shape).round().double(), keep)
    rate = bound * torch.rand(shape, dtype=torch.float64) * (1 - momentum)
    if kind == "no momentum":
        momentum = torch.zeros_like(momentum)
    if kind == "no rate":
        rate = torch.zeros_like(rate)
    if kind == "all forgotten":
        keep = torch.zeros_like(keep)
    if kind == "nothing forgotten":
        keep = torch.ones_like(keep)
    return {"momentum": momentum, "rate": rate, "keep": keep}


def inputs(time: int, kind: str = "mixed", bound: float = 0.2, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, BATCH, time, HEADS, WIDTH, dtype=torch.float64)
    unit = {"q": q / q.norm(dim=-1, keepdim=True), "k": k / k.norm(dim=-1, keepdim=True)}
    return {**unit, "v": v / v.norm(dim=-1, keepdim=True), **gates(kind, (BATCH, time, HEADS), bound)}


def memory(depth: int, hidden: int = 9) -> tuple[Tensor, ...]:
    sizes = [WIDTH, *[hidden] * (depth - 1), WIDTH]
    pairs = zip(sizes, sizes[1:], strict=False)
    return tuple(torch.randn(HEADS, a, b, dtype=torch.float64) * a**-0.5 for a, b in pairs)


def read_in_pieces(form, given: dict[str, Tensor], pieces: list[int], **fixed) -> tuple[Tensor, State]:
    ys, state, start = [], None, 0
    for size in pieces:
        piece = {name: x[:, start : start + size] for name, x in given.items()}
        y, state = form(**piece, state=state, **fixed)
        ys.append(y)
        start += size
    return torch.cat(ys, 1), state


def leaves(state: State) -> list[Tensor]:
    return [part for group in state for part in group]


def agree(fast, given: dict[str, Tensor], initial: tuple[Tensor, ...], rule: Rule, pieces: list[int]) -> None:
    """Outputs, last states and all gradients of the fast form, read in pieces, are those of the recurrence read whole."""
    answers = []
    for form, cuts in ((recurrence, [sum(pieces)]), (fast, pieces)):
        own = {name: x.clone().requires_grad_() for name, x in given.items()}
        weights = tuple(w.clone().requires_grad_() for w in initial)
        y, state = read_in_pieces(form, own, cuts, initial=weights, rule=rule)
        values = [y, *leaves(state)]
        draws = [
            torch.randn(x.shape, generator=torch.Generator().manual_seed(i), dtype=x.dtype)
            for i, x in enumerate(values)
        ]
        sum((x * draw).sum() for x, draw in zip(values, draws, strict=True)).backward()
        answers.append(
            (values, {**{name: x.grad for name, x in own.items()}, **dict(enumerate(w.grad for w in weights))})
        )
    (expected, expected_grads), (got, got_grads) = answers
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.shape == b.shape and a.dtype == torch.float64, index
        assert a.numel() == 0 or relative(a, b) < FORWARD, index
    for name, gradient in expected_grads.items():
        assert got_grads[name].isfinite().all(), name
        scale = gradient.norm().clamp_min(1e-12)
        assert (got_grads[name] - gradient).norm() / scale < BACKWARD, name


def test_two_tokens_by_hand():
    one = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    k, v, q = one * 2, one * torch.tensor([3.0, 5.0]).view(1, 2, 1, 1), one * 7
    keep, momentum, rate = (
        torch.tensor(pair, dtype=torch.float64).view(1, 2, 1) for pair in ((0.5, 0.25), (0.9, 0.8), (0.1, 0.2))
    )
    y, (weights, surprise, opened) = recurrence(
        q,
        k,
        v,
        momentum=momentum,
        rate=rate,
        keep=keep,
        initial=(torch.full((1, 1, 1), 0.5).double(),),
        rule=Rule(chunk=1),
    )
    # token 1: e = 3 - 2 * 0.5 = 2, S = 0.1 * 2 * 2 = 0.4, M = 0.5 * 0.5 + 0.4 = 0.65
    # token 2: e = 5 - 2 * 0.65 = 3.7, S = 0.8 * 0.4 + 0.2 * 2 * 3.7 = 1.8, M = 0.25 * 0.65 + 1.8 = 1.9625
    torch.testing.assert_close(y.flatten(), torch.tensor([7 * 0.65, 7 * 1.9625], dtype=torch.float64))
    assert weights[0].item() == pytest.approx(1.9625) and surprise[0].item() == pytest.approx(1.8)
    assert opened[0].shape[1] == 0
    anchored, _ = recurrence(
        q,
        k,
        v,
        momentum=momentum,
        rate=rate,
        keep=keep,
        initial=(torch.full((1, 1, 1), 0.5).double(),),
        rule=Rule(chunk=2),
    )
    # token 2 compares with the anchor: e = 5 - 2 * 0.5 = 4, S = 0.32 + 0.2 * 2 * 4 = 1.92, M = 0.1625 + 1.92
    assert anchored.flatten()[1].item() == pytest.approx(7 * 2.0825)


def plain(given: dict[str, Tensor], keep: Tensor, rule: Rule) -> Tensor:
    zeros = torch.zeros_like(given["momentum"])
    initial = (torch.zeros(HEADS, WIDTH, WIDTH, dtype=torch.float64),)
    return recurrence(**{**given, "momentum": zeros, "keep": keep}, initial=initial, rule=rule)[0]


def test_without_momentum_and_forgetting_it_is_the_delta_rule():
    given = inputs(40, bound=1.0)
    y = plain(given, torch.ones_like(given["keep"]), Rule(chunk=1))
    expected, _ = matrix.recurrence(given["q"], given["k"], given["v"], rate=given["rate"], compare=True)
    assert relative(y, expected) < 1e-12


def test_gradient_at_the_decayed_memory_is_the_gated_delta_rule():
    given = inputs(40, bound=1.0)
    expected, _ = matrix.recurrence(
        given["q"], given["k"], given["v"], rate=given["rate"], log_forget=given["keep"].log(), compare=True
    )
    assert relative(plain(given, given["keep"], Rule(chunk=1, decayed=True)), expected) < 1e-12
    assert relative(plain(given, given["keep"], Rule(chunk=1)), expected) > 1e-3


@pytest.mark.parametrize("form", LINEAR)
@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
@pytest.mark.parametrize("kind", ["mixed", "ends"])
def test_linear_form_is_the_law(form, chunk: int, kind: str):
    pieces = [1, 37, 3 * chunk + 1, 20] if chunk < 64 else [1, 63, 70, 10]
    agree(form, inputs(sum(pieces), kind), memory(1), Rule(chunk), pieces)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", LINEAR)
@pytest.mark.parametrize("options", [{"decayed": True}, {"exclusive": True}, {"decayed": True, "exclusive": True}])
@pytest.mark.parametrize("chunk", [1, 10, 32])
def test_linear_form_has_the_options(form, chunk: int, options: dict):
    agree(form, inputs(75), memory(1), Rule(chunk, **options), [50, 25])


@pytest.mark.parametrize("form", LINEAR)
@pytest.mark.parametrize("kind", ["no momentum", "no rate", "all forgotten", "nothing forgotten"])
def test_linear_form_at_single_gates_ends(form, kind: str):
    agree(form, inputs(70, kind), memory(1), Rule(4), [70])


@pytest.mark.parametrize("form", [COMPILED])
@pytest.mark.parametrize("values", [9, 24])  # bands of one number and of two registers
@pytest.mark.parametrize("chunk, decayed, exclusive", [(1, True, False), (16, False, True), (40, True, True)])
def test_compiled_matrix_in_bands_of_columns_is_the_law(form, values: int, chunk: int, decayed: bool, exclusive: bool):
    given = inputs(75)
    given["v"] = torch.randn(*given["v"].shape[:3], values, dtype=torch.float64) * values**-0.5
    initial = (torch.randn(HEADS, WIDTH, values, dtype=torch.float64) * WIDTH**-0.5,)
    agree(form, given, initial, Rule(chunk, decayed=decayed, exclusive=exclusive), [50, 25])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", DEEP)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["mixed", "ends"])
def test_deep_form_is_the_law(form, depth: int, kind: str):
    agree(form, inputs(45, kind), memory(depth), Rule(8, "silu" if depth == 3 else "gelu"), [1, 19, 4, 21])


@pytest.mark.parametrize("options", [{"residual": True}, {"decayed": True}, {"exclusive": True, "residual": True}])
def test_deep_form_has_the_options(options: dict):
    agree(deep.chunked, inputs(40, bound=0.1), memory(2), Rule(8, **options), [21, 19])


@pytest.mark.parametrize("form", [COMPILED])
@pytest.mark.parametrize("chunk", [1, 8, 24])
@pytest.mark.parametrize("options", [{"decayed": True}, {"exclusive": True, "decayed": True}])
def test_compiled_form_has_the_options_and_gates_per_layer(form, options: dict, chunk: int):
    weights = memory(2)
    given = fine_gates([w.shape[-1] for w in weights], 40, True, False, "ends")
    agree(form, given, weights, Rule(chunk, **options), [1, 20, 19])


@pytest.mark.parametrize("form", [COMPILED])
def test_compiled_form_says_what_it_does_not_cover(form):
    for given, rule in (
        (fine_gates([9, WIDTH], 4, False, True, "mixed"), Rule(4)),
        (inputs(4), Rule(4, residual=True)),
    ):
        with pytest.raises(NotCovered, match="use provider chunked"):
            form(**given, initial=memory(2), rule=rule)


def test_auto_trains_large_memories_in_chunks():
    """The weights of a memory whose states of a few tokens fill the second cache."""
    large = torch.zeros(HEADS, WIDTH, 2 * LARGEST // WIDTH)
    given = inputs(2)
    assert not is_slower(**given, initial=memory(1), rule=Rule(4))
    assert not is_slower(**given, initial=(large,), rule=Rule(4))
    assert is_slower(**given, initial=(large.requires_grad_(),), rule=Rule(4))


def fine_gates(outs: list[int], time: int, layers: bool, channels: bool, kind: str) -> dict[str, Tensor]:
    """Inputs whose gates differ from layer to layer, or which keep every output channel by a share of its own."""
    given = inputs(time, kind)
    if layers:
        drawn = [gates(kind, (BATCH, time, HEADS), 0.2) for _ in outs]
        given |= {name: torch.stack([each[name] for each in drawn], -1) for name in ("momentum", "rate", "keep")}
    if channels:
        given["keep"] = gates(kind, (BATCH, time, HEADS, sum(outs)), 0.2)["keep"]
    return given


@pytest.mark.parametrize("layers, channels", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", ["mixed", "ends"])
def test_deep_form_has_gates_per_layer_and_channel(layers: bool, channels: bool, depth: int, kind: str):
    weights = memory(depth)
    given = fine_gates([w.shape[-1] for w in weights], 27, layers, channels, kind)
    agree(deep.chunked, given, weights, Rule(8), [1, 18, 8])


@pytest.mark.parametrize("options", [{"decayed": True}, {"residual": True, "exclusive": True, "decayed": True}])
def test_fine_gates_go_with_the_options(options: dict):
    weights = memory(2)
    given = fine_gates([w.shape[-1] for w in weights], 21, True, True, "mixed")
    agree(deep.chunked, given, weights, Rule(8, **options), [13, 8])


def test_gates_that_are_all_alike_are_one_gate():
    weights, given = memory(2), inputs(20)
    outs = sum(w.shape[-1] for w in weights)
    fine = {name: given[name][..., None].expand(-1, -1, -1, 2) for name in ("momentum", "rate")}
    fine["keep"] = given["keep"][..., None].expand(-1, -1, -1, outs)
    for form in (recurrence, deep.chunked):
        y, _ = form(**{**given, **fine}, initial=weights, rule=Rule(8))
        assert relative(y, form(**given, initial=weights, rule=Rule(8))[0]) < 1e-12


def test_one_channel_forgotten_is_one_output_silenced():
    """A matrix that writes nothing and forgets its third output channel answers zero there and as before elsewhere."""
    given, weights = inputs(8, "no rate"), memory(1)
    keep = torch.ones(BATCH, 8, HEADS, WIDTH, dtype=torch.float64)
    keep[..., 2] = 0
    y, _ = deep.chunked(**{**given, "keep": keep}, initial=weights, rule=Rule(4))
    expected = torch.einsum("bthi,hio->btho", given["q"], weights[0])
    assert y[..., 2].abs().max() == 0
    assert relative(y[..., 3:], expected[..., 3:]) < 1e-12


@pytest.mark.parametrize("chunk", [4, 16])
@pytest.mark.parametrize("fast, depth", [(linear.chunked, 1), (deep.chunked, 2)])
def test_long_texts_are_computed_in_slabs(fast, depth: int, chunk: int, monkeypatch):
    """Two blocks a slab, the last slab with one."""
    block = 32 if fast is linear.chunked and chunk == 4 else chunk
    monkeypatch.setattr(linear_blocks, "SLAB", 2 * block * BATCH * HEADS * WIDTH)
    agree(fast, inputs(4 * block + 5), memory(depth), Rule(chunk), [block + 3, 3 * block + 2])


@pytest.mark.parametrize("form", DEEP)
@pytest.mark.parametrize("kind", ["no momentum", "no rate", "all forgotten", "nothing forgotten"])
def test_deep_form_at_single_gates_ends(form, kind: str):
    agree(form, inputs(33, kind), memory(2), Rule(8), [33])


@pytest.mark.parametrize("fast", [linear.chunked, deep.chunked, COMPILED])
def test_the_law_goes_on_from_a_fast_forms_state(fast):
    given, fixed = inputs(50), {"initial": memory(1), "rule": Rule(8)}
    first, second = ({name: x[:, part] for name, x in given.items()} for part in (slice(0, 29), slice(29, 50)))
    _, state = fast(**first, **fixed)
    y, _ = recurrence(**second, **fixed, state=state)
    assert relative(y, recurrence(**given, **fixed)[0][:, 29:]) < FORWARD


@pytest.mark.parametrize("fast", [recurrence, linear.chunked, deep.chunked, COMPILED])
def test_a_state_is_untouched_small_and_reusable(fast):
    given, fixed = inputs(27), {"initial": memory(1), "rule": Rule(8)}
    _, state = fast(**given, **fixed)
    copies = [part.clone() for part in leaves(state)]
    once, twice = (fast(**given, **fixed, state=state)[0] for _ in range(2))
    assert torch.equal(once, twice)
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), copies, strict=True))
    assert state[2][0].shape[1] == 3
    for part in leaves(state):
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


def test_reading_after_the_last_token_needs_only_the_weights():
    given, weights = inputs(16), memory(2)
    y, state = deep.chunked(**given, initial=weights, rule=Rule(8))
    again = network(state[0], given["q"][:, -1, :, None], Rule(8))[..., 0, :]
    assert relative(again, y[:, -1]) < FORWARD


@pytest.mark.parametrize("low, high", [(0.02, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 0.97)])
def test_coefficients_do_not_cancel_in_float32(low: float, high: float):
    """Cumulated logarithms lose every coefficient beyond some twenty tokens once momentum is well below forgetting."""
    torch.manual_seed(0)
    momentum = low + (high - low) * torch.rand(1, 1, 4, 64)
    keep = 0.97 + 0.03 * torch.rand(1, 1, 4, 64)
    for got, expected in zip(
        linear.coefficients(momentum, keep, 64), linear.coefficients(momentum.double(), keep.double(), 64), strict=True
    ):
        known = expected > 1e-30
        assert ((got.double() - expected).abs()[known] / expected[known]).max() < 5e-6


def test_half_precision_keeps_its_state_in_float32():
    given = {name: x.bfloat16() for name, x in inputs(40).items()}
    for fast, weights in ((linear.chunked, memory(1)), (deep.chunked, memory(2))):
        weights = tuple(w.float() for w in weights)
        y, state = fast(**given, initial=weights, rule=Rule(8))
        assert y.dtype == torch.bfloat16 and all(part.dtype == torch.float32 for part in leaves(state))
        wide, _ = fast(**{name: x.float() for name, x in given.items()}, initial=weights, rule=Rule(8))
        assert relative(y.float(), wide) < 1e-2


def test_impossible_rules_say_what_to_do():
    with pytest.raises(ValueError, match="at least 1 token"):
        Rule(0)
    with pytest.raises(ValueError, match="gelu, silu"):
        Rule(activation="relu")
    with pytest.raises(ValueError, match="fits neither 2 layers"):
        recurrence(**fine_gates([1, 2], 4, False, True, "mixed"), initial=memory(2), rule=Rule(4))
    with pytest.raises(ValueError, match="forgets per head"):
        linear.chunked(**fine_gates([WIDTH], 4, False, True, "mixed"), initial=memory(1), rule=Rule(4))
    with pytest.raises(ValueError, match="single matrix"):
        linear.chunked(**inputs(4), initial=memory(2), rule=Rule(4))
