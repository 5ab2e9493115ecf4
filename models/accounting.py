"""What a model costs: parameters, state bytes, and floating-point operations per token, forward and in training.

Operations come from formulas. An `nn.Linear`, a short convolution and the tied output are counted from the modules that are
there; what a module computes beside them it says itself, `flops(time) -> models.flops.Flops` for one text of `time` tokens, with
the formula of its recurrence from `models/flops.py`. A test holds every model's sum to torch's counter on the chunked form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.flops import Flops, product_flops
from models.language_model import Size, build, parameter_count, seeded, state_bytes
from models.layers import ShortConvolution


@dataclass(frozen=True)
class Costs:
    """One model at one size and context.

    `parameters` are those outside the embedding, `state_bytes` the most that one row's state takes over one period,
    `forward` and `training` operations per token, the latter with the backward pass; None where a class says no `flops`.
    """

    parameters: int
    state_bytes: int
    forward: float | None
    training: float | None


def costs(name: str, size: Size, length: int, **settings: Any) -> Costs:
    """The costs of a registered model at a context of `length` tokens.

    Raises ValueError for a length below 1, and what `build` raises.
    """
    if length < 1:
        raise ValueError(f"A context has at least 1 token, not {length}.")
    model = seeded(name, size, 0, **settings)
    found = flops(model, length)
    forward = None if found is None else (found.forward + found.elementwise) / length
    training = None if found is None else forward + (found.backward + 2 * found.elementwise) / length
    tokens = torch.zeros(1, length + model.period, dtype=torch.long)
    return Costs(parameter_count(model), largest_state(model, tokens, length), forward, training)


def training_flops_per_token(name: str, size: Size, length: int, **settings: Any) -> float | None:
    """Operations per token of a training step on texts of `length` tokens; None where the model's class says no `flops`."""
    with torch.device("meta"):
        found = flops(build(name, size, **settings), length)
    return None if found is None else (found.forward + found.backward + 3 * found.elementwise) / length


def flops(model: nn.Module, time: int) -> Flops | None:
    """Operations of one text of `time` tokens, from none; None if nothing in the token mixer says `flops`."""
    if not says_flops(model):
        return None
    vocab, width = model.embedding.weight.shape
    total = product_flops(time * vocab * width).plus(linear_flops(model, time))
    for module in model.modules():
        if hasattr(module, "flops"):
            total = total.plus(module.flops(time))
    return total


def says_flops(model: nn.Module) -> bool:
    """True if each of the model's mixers, or the whole language model, has a module with a formula."""
    if hasattr(model, "flops"):
        return True
    mixers = [block.mixer for block in getattr(model, "blocks", ()) if hasattr(block, "mixer")]
    return bool(mixers) and all(any(hasattr(module, "flops") for module in mixer.modules()) for mixer in mixers)


def linear_flops(module: nn.Module, rows: int) -> Flops:
    """Operations of all `nn.Linear` and short convolutions in a module, each applied to `rows` rows."""
    weights = 0
    for part in module.modules():
        if isinstance(part, nn.Linear | ShortConvolution):
            weights += part.weight.numel()
    return product_flops(rows * weights)


@torch.no_grad()
def largest_state(model: nn.Module, tokens: Tensor, start: int) -> int:
    """Most bytes of a state from `start`, which is reached in one piece, over the single tokens behind it."""
    _, state = model(tokens[:, :start])
    most = state_bytes(state)
    for place in range(start, tokens.shape[1]):
        _, state = model(tokens[:, place : place + 1], state)
        most = max(most, state_bytes(state))
    return most
