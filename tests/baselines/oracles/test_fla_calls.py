"""Every call of the provider `fla` against the reference recurrence, through Triton's interpreter, beyond what the ledger keeps.

Runs with TRITON_INTERPRET=1 where fla-core and triton are installed (and transformers is not).
"""

from __future__ import annotations

import math

import pytest
import torch

from baselines.oracles.parity.fla import interpreter, kernels_of_erasing
from baselines.oracles.parity.fla.kernels import CALLS, TOKENS, Call, of_a_token, over_a_text, side
from models.ops.erase_and_write import erase_and_write
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
