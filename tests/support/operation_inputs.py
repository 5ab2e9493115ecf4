"""Inputs and a carried state for every operation, each as (positional, by name): two rows, three heads of width four."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.associative_memory.retention_rule import RetentionRule
from models.ops.associative_memory.window_recurrence import WindowRule
from models.ops.neural_memory.recurrence import Rule

Given = tuple[tuple[Any, ...], dict[str, Any]]


def given_to(operation: str, time: int) -> Given:
    """Inputs of an operation over `time` tokens."""
    return GIVEN[operation](torch.randn(2, time, 3, 4))


def _scan(x: Tensor) -> Given:
    return (x, x, x), {"state": torch.randn(2, 3, 4, 4), "log_forget": -x[..., 0].abs()}


def _erase_and_write(x: Tensor) -> Given:
    return (x, x, x, x), {"state": torch.randn(2, 3, 4, 4), "log_forget": -x.abs()}


def _selective(x: Tensor) -> Given:
    flat = x.flatten(2)
    return (flat, flat.abs(), -torch.ones(12, 4), x[:, :, 0], x[:, :, 1]), {"state": torch.randn(2, 12, 4)}


def _diagonal(x: Tensor) -> Given:
    flat = x.flatten(2)
    return (flat.sigmoid(), flat), {"state": torch.randn(2, 12)}


def _diagonal_outer(x: Tensor) -> Given:
    flat, gate = x.flatten(2), x[:, :, 0].sigmoid()
    return (flat, flat.sigmoid(), x[:, :, 1], gate, x[:, :, 2]), {"state": torch.randn(2, 4, 12)}


def _recurrent_cell(x: Tensor) -> Given:
    weights = torch.randn(48, 12), torch.randn(1, 48, 12)
    return (x.flatten(2), *weights), {"cell": "lstm", "state": torch.randn(2, 2, 12)}


def _trapezoidal(x: Tensor) -> Given:
    state = torch.randn(2, 3, 2), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    biases = {"bias_q": torch.randn(3, 4), "bias_k": torch.randn(3, 4), "skip": torch.randn(3)}
    gates = {"log_forget": -x[..., 0].abs(), "delta": x[..., 1].abs(), "trapezoid": x[..., 2]}
    return (x, x, x), {**gates, "speed": x[:, :, 0, :2], **biases, "state": state}


def _short_convolution(x: Tensor) -> Given:
    return (x.flatten(2), torch.randn(12, 1, 4)), {"state": torch.randn(2, 3, 12)}


def _log_linear(x: Tensor) -> Given:
    return (x, x, x, x.abs()), {"log_forget": -x[..., 0].abs()}


def _convolution(x: Tensor) -> Given:
    numbers = [torch.full((12, 5), 0.3 + 0.4j)] * 3
    return (x.flatten(2), *numbers), {"state": torch.randn(2, 12, 5, 2)}


def _liquid_convolution(x: Tensor) -> Given:
    inputs, _ = _convolution(x)
    return inputs, {"degree": 2, "state": torch.randn(2, 2, 12, 5, 2)}


def _test_time_training(x: Tensor) -> Given:
    weights, norm = (torch.randn(3, 5, 4),), (torch.ones(3, 4), torch.zeros(3, 4))
    return (x, x, x), {"rate": x[..., 0].abs(), "factor": torch.ones(4), "weights": weights, "norm": norm}


def _ridge_read(x: Tensor) -> Given:
    rate, state = x[..., 0].abs(), torch.randn(2, 3, 4, 4)
    return (x, x, x), {"log_forget": -rate, "rate": rate, "ridge": torch.ones(3, 4), "state": (state, state)}


def _fast_weights(x: Tensor) -> Given:
    rates = {"rates": x[..., :3].abs(), "momentum": x[..., 0].sigmoid()}
    return (x, x, x), {**rates, "weights": (torch.randn(3, 4, 4),) * 3, "chunk": 4}


def _routed_attention(x: Tensor) -> Given:
    state = torch.randn(2, 3, 5, 2, 4), torch.randn(2, 3, 5, 2, 4), torch.full((2, 3, 5), 2)
    return (x, x, x, x.argmax(-1)), {"clusters": 5, "window": 3, "scale": 0.5, "state": state}


def _balanced_attention(x: Tensor) -> Given:
    state = torch.randn(2, 3, 4, 3, 4), torch.randn(2, 3, 4, 3, 4), torch.randn(2, 3, 4, 3)
    return (x, x, x, x), {"window": 3, "scale": 0.5, "state": state}


def _gates(x: Tensor, *names: str) -> dict[str, Tensor]:
    return {name: x[..., 0].sigmoid() for name in names}


def _retention_memory(x: Tensor) -> Given:
    gates = _gates(x, "threshold", "rate", "keep")
    return (x, x, x), {**gates, "initial": (torch.randn(3, 4, 4),), "rule": RetentionRule(4)}


def _window_memory(x: Tensor) -> Given:
    gates = _gates(x, "weight", "rate", "keep")
    return (x, x, x), {**gates, "initial": (torch.randn(3, 4, 4),), "rule": WindowRule(4)}


def _neural_memory(layers: int):
    """Titans' memory of so many layers."""

    def given(x: Tensor) -> Given:
        gates = _gates(x, "momentum", "rate", "keep")
        return (x, x, x), {**gates, "initial": (torch.randn(3, 4, 4),) * layers, "rule": Rule(4)}

    return given


GIVEN = {
    "scan": _scan,
    "erase and write": _erase_and_write,
    "selective": _selective,
    "diagonal": _diagonal,
    "diagonal outer": _diagonal_outer,
    "recurrent cell": _recurrent_cell,
    "trapezoidal": _trapezoidal,
    "short convolution": _short_convolution,
    "log-linear": _log_linear,
    "convolution": _convolution,
    "liquid convolution": _liquid_convolution,
    "test-time training": _test_time_training,
    "ridge read": _ridge_read,
    "fast weights": _fast_weights,
    "routed attention": _routed_attention,
    "balanced attention": _balanced_attention,
    "kernel attention": lambda x: ((x, x, x), {"kernel": "square"}),
    "block and kernel attention": lambda x: ((x, x, x, x, x), {"block": 3}),
    "window and kernel attention": lambda x: ((x, x, x), {"projection": torch.randn(6, 4), "window": 3}),
    "retention memory": _retention_memory,
    "window memory": _window_memory,
    "linear memory": _neural_memory(1),
    "deep memory": _neural_memory(2),
}
