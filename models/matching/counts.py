"""What a built model holds and does: learned numbers, bytes of state, floating-point operations.

Operations come from formulas. An `nn.Linear`, a short convolution and the tied output are counted from the modules that are
there; what a module computes beside them it says itself, `flops(time) -> Flops` for one text of `time` tokens, with
the formula of its recurrence from its operation's folder. A test holds every model's sum to torch's counter on the chunked form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from models.layers import linear_flops
from models.ops.flops import Flops, product_flops


def parameter_count(model: nn.Module) -> int:
    """Learned numbers outside the token embedding (tied to the output); initial memories and persistent tokens count."""
    embedding = model.embedding.weight
    return sum(p.numel() for p in model.parameters() if p is not embedding)


def state_bytes(state: Any) -> int:
    """Bytes of the distinct storages behind the tensors of a state; plain integers count nothing."""
    storages = {}
    for leaf in tree_leaves(state):
        if isinstance(leaf, Tensor):
            storage = leaf.untyped_storage()
            storages[storage.data_ptr(), storage.device] = storage.nbytes()
    return sum(storages.values())


@torch.no_grad()
def largest_state(model: nn.Module, tokens: Tensor, start: int, piece: int = 1) -> int:
    """Most bytes of a state from `start`, which is reached in one piece, over the single tokens (or pieces) behind it."""
    _, state = model(tokens[:, :start])
    most = state_bytes(state)
    for place in range(start, tokens.shape[1], piece):
        _, state = model(tokens[:, place : place + piece], state)
        most = max(most, state_bytes(state))
    return most


def training_flops(model: nn.Module, length: int) -> float | None:
    """Operations per token of a training step on texts of `length` tokens; None where the model's class says no `flops`."""
    found = flops(model, length)
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
