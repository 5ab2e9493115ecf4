"""Every call of the provider `fla` against the reference recurrence, through Triton's interpreter, beyond what the ledger keeps.

Runs with TRITON_INTERPRET=1 where fla-core and triton are installed (and transformers is not).
"""

from __future__ import annotations

import math

import pytest
import torch

from baselines.oracles.parity.fla import (
    interpreter,
    kernels_of_channels,
    kernels_of_erasing,
    kernels_of_log_linear,
    kernels_of_products,
)
from baselines.oracles.parity.fla.kernels import CALLS, TOKENS, Call, of_a_token, over_a_text, side
from models.ops.diagonal_scan import diagonal_scan
from models.ops.erase_and_write import erase_and_write
from models.ops.kernel_attention import kernel_attention
from models.ops.log_linear import log_linear
from models.ops.providers import NotCovered, ProviderAbsent, watch
from models.ops.scan import scan
from models.ops.ttt import test_time_training as ttt

pytestmark = pytest.mark.skipif(bool(interpreter.reason()), reason=interpreter.reason())

PLAIN = Call("linear-attention", "chunk_simple_gla, no gate")
ALL = (PLAIN, *CALLS, Call("gated-deltanet", "chunk_gated_delta_rule, rate 1", "head", compare=True))


def bound(call: Call) -> float:
    return 1e-5 if call.kind == torch.float32 else 5e-3


@pytest.mark.parametrize("time, carried", [(5, True), (64, False)])
@pytest.mark.parametrize("call", ALL, ids=lambda call: call.kernel)
def test_text_of_any_length_is_the_law(call: Call, time: int, carried: bool):
    errors = over_a_text(call, time, carried)
    assert max(errors) < bound(call), errors


@pytest.mark.parametrize("call", ALL, ids=lambda call: call.kernel)
def test_one_token_that_is_trained_on_has_a_gradient(call: Call):
    """Without a carried state a gate's gradient is 0, so the state is given."""
    assert max(over_a_text(call, 1)) < bound(call)


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("call", (PLAIN, *TOKENS), ids=lambda call: call.kernel)
def test_one_token_in_decoding_is_the_law(call: Call, carried: bool):
    assert of_a_token(call, carried).forward < 1e-6


@pytest.mark.parametrize("gate", [-1e-4, -30.0, -500.0])
@pytest.mark.parametrize("call", [CALLS[1], CALLS[2], CALLS[5]], ids=lambda call: call.kernel)
def test_gates_near_one_and_zero(call: Call, gate: float):
    interpreter.prepare()
    torch.manual_seed(0)
    q, k = (torch.nn.functional.normalize(torch.randn(1, 70, 2, 16), dim=-1) for _ in "qk")
    shape = (1, 70, 2, 16) if call.forget == "key channel" else (1, 70, 2)
    given = {"q": q, "k": k, "v": torch.randn(1, 70, 2, 8), "log_forget": torch.full(shape, gate)}
    ours, law = (side(call, name)(**given) for name in ("fla", "recurrence"))
    for got, expected in zip(ours, law, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("time, carried", [(5, True), (64, False), (1, True)])
@pytest.mark.parametrize("row", kernels_of_erasing.ROWS, ids=lambda row: row.model)
def test_erasing_over_text_of_any_length_is_the_law(row, time: int, carried: bool):
    errors = kernels_of_erasing.over_a_text(row, time, carried)
    assert max(errors) < 1e-5, errors


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("row", kernels_of_erasing.ROWS, ids=lambda row: row.model)
def test_erasing_by_one_token_in_decoding_is_the_law(row, carried: bool):
    assert kernels_of_erasing.of_a_token(row, carried).forward < 1e-6


@pytest.mark.parametrize("gate", [-1e-4, -30.0, -500.0])
def test_erasing_behind_gates_near_one_and_zero(gate: float):
    interpreter.prepare()
    given = kernels_of_erasing.inputs(kernels_of_erasing.ROWS[0], 70)
    given["log_forget"] = torch.full_like(given["log_forget"], gate)
    ours, law = (erase_and_write(**given, provider=name) for name in ("fla", "recurrence"))
    for got, expected in zip(ours, law, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_keys_that_are_too_wide_to_erase_with_are_refused():
    wide = torch.randn(1, 2, 1, 257)
    with pytest.raises(NotCovered, match="keys of at most 256; use chunked"):
        erase_and_write(wide, wide, wide, wide, log_forget=-wide.abs(), provider="fla")


def test_a_text_in_float32_is_left_to_others_on_a_gpu(monkeypatch):
    interpreter.prepare()
    monkeypatch.setattr("models.ops.erase_and_write.fla.interpreted", lambda: False)
    given = kernels_of_erasing.inputs(kernels_of_erasing.ROWS[0], 2)
    with pytest.raises(NotCovered, match="half precision only"):
        erase_and_write(**given, provider="fla")


@pytest.mark.parametrize("time, carried", [(1, True), (7, False), (128, True), (129, False)])
@pytest.mark.parametrize("row", kernels_of_channels.ROWS, ids=lambda row: row.model)
def test_diagonal_scan_of_any_length_is_the_law(row, time: int, carried: bool):
    errors = kernels_of_channels.over_a_text(row, time, carried)
    assert max(errors) < 1e-5, errors


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("row", kernels_of_channels.ROWS, ids=lambda row: row.model)
def test_diagonal_scan_of_one_token_in_decoding_is_the_law(row, carried: bool):
    assert kernels_of_channels.of_a_token(row, carried).forward < 1e-6


@pytest.mark.parametrize("time", [9, 140])
def test_decays_of_nothing_and_all_have_the_laws_gradient(time: int):
    """Through a logarithm the gradient of a decay of 0 would be 0 / 0."""
    interpreter.prepare()
    gradients = []
    for provider in ("fla", "recurrence"):
        a = torch.tensor([0.0, 1.0]).repeat(1, time, 1).requires_grad_()
        x = torch.linspace(-1, 1, 2 * time).cos().view(1, time, 2)
        h, last = diagonal_scan(a, x, torch.ones(1, 2), provider=provider)
        gradients.append(torch.autograd.grad(h.square().sum() + last.sum(), a)[0])
    assert gradients[1][..., 0].abs().min() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_diagonal_scan_without_a_logarithm_is_refused():
    a, x = torch.full((1, 3, 4), 0.5), torch.randn(1, 3, 4)
    with pytest.raises(NotCovered, match="real numbers, and these are complex; use chunked"):
        diagonal_scan(a.to(torch.complex64), x, provider="fla")
    with pytest.raises(NotCovered, match="logarithm of a decay, and one is below 0; use chunked"):
        diagonal_scan(-a, x, provider="fla")
    for wide in ((a.double(), x), (a, x.double())):
        with pytest.raises(NotCovered, match="float64"):
            diagonal_scan(*wide, provider="fla")


@pytest.mark.parametrize("time, levels, heads", [(5, 8, 2), (64, 8, 1), (130, 4, 1), (130, 12, 2)])
def test_log_linear_attention_of_any_length_is_the_law(time: int, levels: int, heads: int):
    """Also where the last level holds parts of a chunk (4), and where there are more levels than the text has digits (12)."""
    errors = kernels_of_log_linear.over_a_text(time, levels, heads)
    assert max(errors) < 1e-5, errors


@pytest.mark.parametrize("before, time, levels", [(64, 1, 8), (128, 64, 10), (256, 70, 5), (320, 130, 8)])
def test_log_linear_attention_from_a_state_is_the_law(before: int, time: int, levels: int):
    assert kernels_of_log_linear.from_a_state(before, time, levels).forward < 1e-6


def test_log_linear_attention_that_reads_nothing_keeps_its_buckets():
    interpreter.prepare()
    given = {name: x[:, :0] for name, x in kernels_of_log_linear.inputs(1).items()}
    buckets = torch.randn(2, 2, 7, 16, 24)
    with torch.no_grad():
        y, (after, count) = log_linear(**given, state=(buckets, 64), provider="fla")
    assert y.shape == (2, 0, 2, 24) and count == 64 and torch.equal(after, buckets)


@pytest.mark.parametrize(
    "change, count, said",
    [
        ({"compare": True}, 0, "without a comparison only"),
        ({}, 64, "without a gradient and after a multiple of 64 tokens"),
        ({"q": torch.ones(2, 3, 1, 129), "k": torch.ones(2, 3, 1, 129)}, 0, "keys and values of at most 128"),
        ({"q": torch.ones(2, 3, 1, 16, dtype=torch.float64)}, 0, "float64"),
    ],
)
def test_log_linear_attention_that_is_not_covered_is_refused(change, count: int, said: str):
    given = kernels_of_log_linear.inputs(3) | change
    state = (torch.zeros(2, 2, 7, 16, 24), count) if count else None
    with pytest.raises(NotCovered, match=said):
        log_linear(**given, state=state, provider="fla")
    with torch.no_grad(), pytest.raises(NotCovered, match="here 65"):
        log_linear(**kernels_of_log_linear.inputs(3), state=(torch.zeros(2, 2, 7, 16, 24), 65), provider="fla")


@pytest.mark.parametrize("time, carried", [(1, True), (7, False), (64, True), (130, True)])
@pytest.mark.parametrize("kernel", ["product", "exponential"])
def test_kernel_attention_of_any_length_is_the_law(kernel: str, time: int, carried: bool):
    errors = kernels_of_products.over_a_text(kernel, time, carried)
    assert max(errors) < 1e-5, errors


@pytest.mark.parametrize("kernel", ["product", "exponential"])
def test_kernel_attention_of_one_token_and_without_weights_is_the_law(kernel: str):
    interpreter.prepare()
    given = kernels_of_products.inputs(kernel, 1, carried=False)
    with torch.no_grad():
        pairs = [
            kernel_attention(**given, kernel=kernel, normalise=False, provider=name) for name in ("fla", "recurrence")
        ]
    torch.testing.assert_close(pairs[0][0], pairs[1][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", ["taylor", "square"])
def test_kernels_whose_features_cancel_are_refused(kernel: str):
    with pytest.raises(NotCovered, match=f"no kernel '{kernel}'.*TF32; use chunked"):
        kernel_attention(**kernels_of_products.inputs(kernel, 3, carried=False), kernel=kernel, provider="fla")


def test_provider_that_ran_is_noted_and_what_it_lacks_is_refused():
    interpreter.prepare()
    x = torch.randn(1, 3, 1, 16)
    with watch() as ran:
        y, _ = scan(x, x, x, provider="fla")
    assert ran == {"fla"} and not math.isnan(y.sum().item())
    with pytest.raises(NotCovered, match="float64"):
        scan(*3 * [x.double()], provider="fla")
    with pytest.raises(NotCovered, match="gates per head and keys of at most 256"):
        scan(x, x, x, log_forget=-x.abs(), compare=True, provider="fla")
    with pytest.raises(
        ProviderAbsent, match="'fla' has no form of 'test-time training'.*rate of the token that writes"
    ):
        ttt.form("fla")
