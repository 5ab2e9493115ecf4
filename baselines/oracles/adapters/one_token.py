"""One token of a recurrence by other people's code, again and again from the state that the token before left.

Each is given what a layer of ours gives its recurrence for a token behind a text, lays it out as the package wants it once, and
returns what computes the token's output: only that is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from baselines.oracles.adapters.operation_alone import Given, Token
from baselines.oracles.parity.fla.naive import turned
from models.ops.scan import vllm_cpu
from models.ops.vllm_library import kernels


def gated_delta_rule(rule: Callable) -> Callable[[Given], Token]:
    """A gated delta rule with the oracles' signature, which takes a state and returns the next one."""

    def begun(alone: Given) -> Token:
        q, k, v = alone.inputs
        gates = {"g": alone.named["log_forget"], "beta": alone.named["rate"]}
        q, state = q * q.shape[-1] ** 0.5, alone.named["state"]  # the rule scales its queries itself

        def token() -> Tensor:
            nonlocal state
            y, state = rule(q, k, v, **gates, initial_state=state, output_final_state=True)
            return y

        return token

    return begun


def vllm_gated_delta_rule(alone: Given) -> Token:
    """vllm-cpu's kernel, which writes the new state over the old one."""
    gates = {name: alone.named[name] for name in ("log_forget", "rate")}
    given = vllm_cpu.token_inputs(*alone.inputs, **gates, state=alone.named["state"].clone())
    kernel = kernels().fused_sigmoid_gating_delta_rule_update_cpu
    return lambda: kernel(*given)


def vllm_state_space(alone: Given) -> Token:
    """vllm-cpu's scan of a text of one token: it took 0.7 of the time of its `selective_state_update_cpu`."""
    gates = {name: alone.named[name] for name in ("log_forget", "rate")}
    y, given = vllm_cpu.state_space_inputs(*alone.inputs, **gates, state=alone.named["state"])
    kernel = kernels().mamba_chunk_scan_fwd_cpu

    def token() -> Tensor:
        kernel(y, *given)
        return y

    return token


def xlstm_memory(alone: Given) -> Token:
    """The step of xlstm's mLSTM in PyTorch. Its keys are not scaled, so its C and n are ours times the root of their width."""
    step = import_module("mlstm_kernels.torch.recurrent.native_step").mlstm_recurrent_step__native
    q, k, v, write, forget, (matrix, m) = alone.inputs
    read: dict[str, Any] = dict(zip("qkv", (x[:, 0] for x in (q, k, v)), strict=True))
    read |= {"i": turned(write)[0], "f": turned(forget)[0]}
    matrix = matrix * q.shape[-1] ** 0.5
    state = (matrix[..., :-1], matrix[..., -1], m[..., None])

    def token() -> Tensor:
        nonlocal state
        y, state = step(**read, **dict(zip("cnm", state, strict=True)))
        return y

    return token
