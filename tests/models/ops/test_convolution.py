"""A linear time-invariant system: the law by hand, its chunks and its C against the law, the steps of fixed length, and HiPPO."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.ops.convolution import convolution
from models.ops.convolution.chunked import CHUNK, STEPS, chunked
from models.ops.convolution.discrete import bilinear, bilinear_of_rank_one, expm1, zero_order_hold
from models.ops.convolution.initial import hippo_legs, poles
from models.ops.convolution.native import native
from models.ops.convolution.recurrence import recurrence
from models.ops.native_build import compiler
from models.ops.providers import watch

COMPILED = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
FORMS = [chunked, pytest.param(native, marks=COMPILED)]
BOUNDS = {chunked: 1e-9, native: 1e-12}
SIZES = {"near 1": 1 - 1e-7, "mixed": 0.9, "near 0": 1e-30, "0": 0.0}
LENGTHS = [1, STEPS, STEPS + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17]


def drawn(time: int, erase: bool, size: str = "mixed", width: int = 3, states: int = 4) -> dict:
    """Random inputs in float64's numbers: transitions whose eigenvalues are at most 1."""
    batch, kind = 2, torch.complex128
    torch.manual_seed(time)
    phase = torch.exp(1j * torch.rand(width, states, dtype=torch.float64) * 2 * math.pi)
    given = {
        "x": torch.randn(batch, time, width, dtype=torch.float64),
        "forget": SIZES[size] * phase,
        "write": torch.randn(width, states, dtype=kind),
        "read": torch.randn(width, states, dtype=kind),
        "state": torch.randn(batch, width, states, 2, dtype=torch.float64),
    }
    if erase:  # a true system, whose powers stay bounded
        P = torch.randn(width, states, dtype=kind)
        dt = {"near 1": 1e-6, "mixed": 0.1, "near 0": 10.0, "0": 2.0}[size]
        Lam = torch.complex(-torch.rand(width, states, dtype=torch.float64), 3 * torch.randn(width, states).double())
        if size == "0":
            Lam = torch.full_like(Lam, -1.0)  # a = 0
        given["forget"], given["write"], pair = bilinear_of_rank_one(
            torch.full((width,), dt).double(), Lam, P, given["write"]
        )
        given["u"], given["v"] = pair
    return given


def run(form, given: dict[str, Tensor], x: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    named = {name: value for name, value in given.items() if name not in ("u", "v")}
    erase = (given["u"], given["v"]) if "u" in given else None
    return form(**(named if x is None else named | {"x": x, "state": state}), erase=erase)


def answers(form, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, last state and every gradient of a random projection of both."""
    inputs = {name: value.clone().requires_grad_() for name, value in given.items()}
    y, state = run(form, inputs)
    draw = torch.Generator().manual_seed(1)
    loss = sum((z * torch.randn(z.shape, generator=draw, dtype=torch.float64).to(z)).sum() for z in (y, state))
    found = torch.autograd.grad(loss, list(inputs.values()))
    return {"y": y, "last state": state, **{f"d{name}": g for name, g in zip(inputs, found, strict=True)}}


def agree(form, given: dict[str, Tensor]) -> None:
    right, fast = answers(recurrence, given), answers(form, given)
    for name, expected in right.items():
        assert fast[name].isfinite().all(), name
        assert (fast[name] - expected).norm() <= BOUNDS[form] * expected.norm().clamp_min(1e-12), name
        assert fast[name].dtype == expected.dtype, name


@pytest.mark.parametrize("erase", [False, True], ids=["diagonal", "rank one"])
@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_forms_are_the_law(form, time, erase):
    agree(form, drawn(time, erase))


@pytest.mark.parametrize("erase", [False, True], ids=["diagonal", "rank one"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_forms_are_the_law_however_much_is_forgotten(form, size, erase):
    agree(form, drawn(2 * CHUNK + 5, erase, size))


@COMPILED
@pytest.mark.parametrize("erase", [False, True], ids=["diagonal", "rank one"])
@pytest.mark.parametrize("width, states", [(1, 1), (8, 3), (21, 32)])
def test_channels_beyond_whole_vectors_and_odd_numbers_of_states(width, states, erase):
    agree(native, drawn(CHUNK + 6, erase, width=width, states=states))


@COMPILED
@pytest.mark.parametrize("erase", [False, True], ids=["diagonal", "rank one"])
def test_inputs_that_are_views_and_conjugates(erase):
    given = drawn(CHUNK + 6, erase)
    views = {name: x.conj() if x.is_complex() else x for name, x in given.items()}
    views |= {"x": given["x"].mT.contiguous().mT, "read": given["read"].mT.contiguous().mT}
    agree(native, views)
    y, state = run(native, views)
    assert torch.equal(y, run(native, {name: x.resolve_conj().contiguous() for name, x in views.items()})[0])


@COMPILED
@pytest.mark.parametrize("erase", [False, True], ids=["diagonal", "rank one"])
def test_a_token_without_a_gradient_is_the_law(erase):
    for width, states in ((3, 4), (5, 1)):
        given = drawn(1, erase, width=width, states=states)
        with torch.no_grad(), watch() as ran:
            named = {name: x for name, x in given.items() if name not in ("u", "v")}
            y, state = convolution(**named, erase=(given["u"], given["v"]) if erase else None)
        right, last = run(recurrence, given)
        assert ran == {"native"}
        assert (y - right).norm() <= 1e-14 * right.norm() and (state - last).norm() <= 1e-14 * last.norm()


@COMPILED
def test_shapes_that_do_not_fit_are_refused():
    given = drawn(5, True)
    for name in ("x", "write", "read", "u", "v", "state"):
        with pytest.raises(ValueError, match=f"{name} has the shape"):
            run(native, given | {name: given[name][..., :1, :] if name == "state" else given[name][..., :1]})


@pytest.mark.parametrize("erase", [False, True], ids=["diagonal", "rank one"])
@pytest.mark.parametrize("cut", [1, STEPS + 3, CHUNK, CHUNK + 1, 50])
@pytest.mark.parametrize("form", FORMS)
def test_state_carries_a_text_over_any_cut(form, cut, erase):
    given = drawn(3 * CHUNK + 17, erase)
    whole, last = run(recurrence, given)
    state, pieces = given["state"], []
    for piece in given["x"].split(cut, 1):
        kept = state.clone()
        y, after = run(form, given, piece, state)
        assert torch.equal(state, kept)
        state = after
        pieces.append(y)
    assert (torch.cat(pieces, 1) - whole).norm() <= BOUNDS[form] * whole.norm()
    assert (state - last).norm() <= BOUNDS[form] * last.norm()


@pytest.mark.parametrize("form", FORMS)
def test_no_state_is_zeros_and_an_empty_piece_changes_nothing(form):
    given = drawn(CHUNK + 9, True)
    state = given.pop("state")
    y, _ = run(form, given)
    assert torch.allclose(y, run(recurrence, {**given, "state": torch.zeros_like(state)})[0])
    none, after = run(form, given, given["x"][:, :0], state)
    assert none.shape == (2, 0, 3) and torch.equal(after, state)
    no_rows, _ = run(form, given, given["x"][:0], state[:0])
    assert no_rows.shape == (0, CHUNK + 9, 3)


@pytest.mark.parametrize("erase", [False, True], ids=["diagonal", "rank one"])
@pytest.mark.parametrize("form", FORMS)
def test_float32_and_half_precision(form, erase):
    given = drawn(5 * CHUNK + 3, erase)
    exact = answers(recurrence, given)
    single = {name: x.to(torch.complex64 if x.is_complex() else torch.float32) for name, x in given.items()}
    found = answers(form, single)
    for name, right in exact.items():
        assert (found[name] - right).norm() <= 1e-5 * right.norm(), name
    single["x"] = single["x"].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half, state = run(form, single)
    assert (half.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert (half - exact["y"]).norm() <= 2e-2 * exact["y"].norm()


def test_law_by_hand():
    """h: 0 -> 2i * 3 = 6i -> i/2 6i + 2i * 1 = -3 + 2i; y = 2 Re(h (1 + i)) = -12, -10."""
    x = torch.tensor([3.0, 1.0], dtype=torch.float64)[None, :, None]
    a, b, c = (torch.tensor([[z]], dtype=torch.complex128) for z in (0.5j, 2j, 1 + 1j))
    y, state = recurrence(x, a, b, c)
    assert y.flatten().tolist() == [-12.0, -10.0]
    assert state.flatten().tolist() == [-3.0, 2.0]
    y, _ = recurrence(x, a, b, c, (b, c))  # less 2i * (2 Re(c 6i) = -12): -3 + 2i + 24i
    assert y.flatten().tolist() == [-12.0, -58.0]


def dense(Lam: Tensor, P: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """`diag(Lam) - P P^*` and B over whole conjugate pairs."""
    whole = [torch.cat([z, z.conj()], -1) for z in (Lam, P, B)]
    return torch.diag_embed(whole[0]) - whole[1][..., :, None] * whole[1][..., None, :].conj(), whole[2]


def test_trapezoidal_rule_of_rank_one_is_that_of_the_whole_matrix():
    given = torch.randn(3, 2, 4, dtype=torch.complex128)
    Lam, P, B, dt = -given[0].abs() + 1j * given[0].imag, given[1], given[2], torch.tensor([0.02, 0.7]).double()
    a, b, (u, v) = bilinear_of_rank_one(dt, Lam, P, B)
    A, whole_B = dense(Lam, P, B)
    eye, half = torch.eye(8, dtype=torch.complex128), dt[:, None, None] / 2
    inverse = torch.linalg.inv(eye - half * A)
    a, b, u, v = (torch.cat([z, z.conj()], -1) for z in (a, b, u, v))
    torch.testing.assert_close(torch.diag_embed(a) - u[..., :, None] * v[..., None, :], inverse @ (eye + half * A))
    torch.testing.assert_close(b, (inverse @ (dt[:, None] * whole_B)[..., None])[..., 0])


def test_steps_of_a_diagonal_system():
    A, dt = torch.tensor([[-0.5 + 3j, -1e-9 + 0j]], dtype=torch.complex128), torch.tensor([0.25], dtype=torch.float64)
    a, b = zero_order_hold(dt, A)
    torch.testing.assert_close(a, torch.exp(A / 4))
    torch.testing.assert_close(b, torch.stack([(a[0, 0] - 1) / A[0, 0], 0.25 + 0j * a[0, 0]])[None])
    a, b = bilinear(dt, A)
    torch.testing.assert_close(b / dt, (a + 1) / 2)
    small = expm1(torch.tensor([1e-7 + 1e-7j], dtype=torch.complex64))
    assert abs(small.item() - (1e-7 + 1e-7j + 1e-14j)) < 1e-13


@pytest.mark.parametrize("states", [1, 4, 32])
def test_hippo_in_normal_form_is_hippo(states):
    """The normal form and the real matrix of the theory answer an impulse alike: C e^(tA) B for C = B^T."""
    imaginary, P = hippo_legs(states)
    A, B = dense(torch.complex(torch.full_like(imaginary, -0.5), imaginary), P + 0j, math.sqrt(2) * P + 0j)
    n = torch.arange(2 * states, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    real = -torch.outer(root, root).tril(-1) - torch.diag(n + 1)
    for t in (0.0, 0.01, 0.3):
        expected = root @ torch.linalg.matrix_exp(t * real) @ root
        found = (B.conj() @ torch.linalg.matrix_exp(t * A) @ B).real
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_poles_of_the_diagonal_systems():
    assert poles("lin", 3).tolist() == pytest.approx([0, math.pi, 2 * math.pi])
    assert poles("inv", 2).tolist() == pytest.approx([4 / math.pi * 3, 4 / math.pi / 3])
    assert torch.equal(poles("legs", 5), hippo_legs(5)[0]) and (poles("legs", 5) < 0).all()
