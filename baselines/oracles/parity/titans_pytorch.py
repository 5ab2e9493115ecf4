"""titans-pytorch's NeuralMemory as an oracle for the recurrences whose state is a network; it runs in float64.

With `chunk_size=1` its gates are per token and its reads inclusive, and `batch_size` is the gradient's anchor, our chunk.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from baselines.oracles.parity.comparison import FP64, Comparison, Draw, Errors, compare_forms, leaves
from models.ops.neural_memory.recurrence import Rule

PACKAGE = "titans-pytorch"
WIDTH, TIME, BOUND = 12, 42, 0.5


def _memory(model: nn.Module, batch_size: int, **settings: Any) -> nn.Module:
    module = import_module("titans_pytorch.neural_memory")
    return module.NeuralMemory(
        WIDTH,
        chunk_size=1,
        batch_size=batch_size,
        model=model,
        pre_rmsnorm=False,
        mem_model_norm_add_residual=False,
        default_step_transform_max_lr=BOUND,
        **settings,
    ).double()


def _inputs(memory: nn.Module, fixed: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """x and the outer parameters, with names that are Python's; `memory_model` is only a shape for the learned weights."""
    found = {name: p for name, p in leaves(memory).items() if not name.startswith(("memory_model.", *fixed))}
    return {"x": Draw(3).normal(2, TIME, WIDTH).double()} | found


def _projected(x: Tensor, given: dict[str, Tensor]) -> list[Tensor]:
    """q, k, v [b, t, 1, d] by the oracle's projections."""
    return [F.linear(x, given[f"to_{name}.weight"])[:, :, None] for name in ("queries", "keys", "values")]


def _gate(x: Tensor, given: dict[str, Tensor], name: str) -> Tensor:
    return F.linear(x, given[f"{name}.0.weight"], given[f"{name}.0.bias"]).sigmoid()


def neural_memory(depth: int, anchor: int) -> Errors:
    """Titans' memory with momentum and forgetting; the oracle's loss is a mean, so its step is 2/d of ours."""
    models = import_module("titans_pytorch.memory_models")
    memory = _memory(models.MemoryMLP(WIDTH, depth, expansion_factor=2.0), anchor)

    def ours(form, x: Tensor, **given: Tensor) -> Tensor:
        y, _ = form(
            *_projected(x, given),
            momentum=_gate(x, given, "to_momentum"),
            rate=_gate(x, given, "to_adaptive_step") * BOUND * 2 / WIDTH,
            keep=1 - _gate(x, given, "to_decay_factor"),
            initial=tuple(given[f"memory_model_parameters.{i}"] for i in range(depth)),
            rule=Rule(chunk=anchor),
        )
        return y[:, :, 0]

    def theirs(x: Tensor, **given: Tensor) -> Tensor:
        return functional_call(memory, given, (x,))[0]

    return compare_forms("linear memory" if depth == 1 else "deep memory", ours, theirs, _inputs(memory))


class Network(nn.Module):
    """TTT's inner network with the oracle's calling convention: x + LN(z(x)); the norm's scale and shift are no weights."""

    def __init__(self, depth: int):
        super().__init__()
        sizes = [WIDTH, *[4 * WIDTH] * (depth - 1), WIDTH]
        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.weights = nn.ParameterList(0.3 * torch.randn(pair) for pair in pairs)
        self.biases = nn.ParameterList(0.3 * torch.randn(1, made) for _, made in pairs)
        self.norm = (torch.ones(WIDTH), torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        z = x
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = (F.gelu(z, approximate="tanh") if index else z) @ weight + bias
        scale, shift = (part.to(x) for part in self.norm)
        return x + F.layer_norm(z, (WIDTH,), scale, shift, 1e-6)


def test_time_training(depth: int) -> Errors:
    """TTT's law, a rate per token and factor 1, as a memory without momentum and forgetting, anchored every 16 tokens."""
    network = Network(depth)
    memory = _memory(
        network,
        16,
        momentum=False,
        init_decay_bias=-1e9,
        store_memory_loss_fn=lambda made, wanted: 0.5 * (made - wanted).square().sum(-1),
    )
    draw = Draw(4)
    norm = {"scale": 1 + 0.3 * draw.normal(WIDTH).double(), "shift": 0.3 * draw.normal(WIDTH).double()}

    def ours(form, x: Tensor, scale: Tensor, shift: Tensor, **given: Tensor) -> Tensor:
        learned = [given[f"memory_model_parameters.{i}"] for i in range(2 * depth)]
        y, _ = form(
            *_projected(x, given),
            rate=_gate(x, given, "to_adaptive_step") * BOUND,
            factor=torch.ones(16, dtype=torch.float64),
            weights=tuple(torch.cat(pair, dim=1) for pair in zip(learned[:depth], learned[depth:], strict=True)),
            norm=(scale[None], shift[None]),
        )
        return y[:, :, 0]

    def theirs(x: Tensor, scale: Tensor, shift: Tensor, **given: Tensor) -> Tensor:
        network.norm = scale, shift
        return functional_call(memory, given, (x,))[0]

    return compare_forms("test-time training", ours, theirs, _inputs(memory, fixed=("to_decay_factor",)) | norm)


def _memory_comparison(depth: int, anchor: int) -> Comparison:
    kind = "linear memory" if depth == 1 else f"memory of {depth} layers"
    what = f"{kind}, b = {anchor}: NeuralMemory, float64"
    return Comparison("titans-lmm", PACKAGE, what, lambda: neural_memory(depth, anchor), FP64)


COMPARISONS = (
    *(_memory_comparison(depth, anchor) for depth in (1, 2) for anchor in (1, 16)),
    *(
        Comparison(
            model,
            PACKAGE,
            "law, a rate a token, factor 1: NeuralMemory around TTT's network, float64",
            lambda depth=depth: test_time_training(depth),
            FP64,
        )
        for model, depth in (("ttt-linear", 1), ("ttt-mlp", 2))
    ),
)
