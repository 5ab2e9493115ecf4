"""What FSDP2 gathers of a model, one unit after another: its repeated blocks, or the parts of them that the model calls.

A unit's weights are there while its own `forward` runs. A model that passes by a block and calls the block's parts itself is
gathered by these parts: which are called is seen in one short text.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

MIXED = "mixed torch.Tensor and DTensor"  # what torch says of a weight that was not gathered


def units(model: nn.Module, device: str) -> list[nn.Module]:
    """The modules to be gathered one after another. Warns where there are none: all weights are then gathered at once."""
    blocks = repeated_blocks(model)
    if not blocks:
        warnings.warn(
            f"{type(model).__name__} has no list of repeated blocks (an nn.ModuleList of modules of one class), so fsdp2 "
            "gathers all its weights at once; hold its blocks in one to save memory.",
            stacklevel=2,
        )
        return []
    called, passed_by = _seen(model, device)
    return [unit for block in blocks for unit in _outermost(block, called, passed_by)]


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The house's `blocks`, or all modules in a user's lists of modules of one class; a list inside those is part of them."""
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.ModuleList) and len(blocks):
        return list(blocks)
    found, inside = [], set()
    for module in model.modules():  # what holds a module comes before it
        if isinstance(module, nn.ModuleList) and module not in inside and len(module) > 1:
            if len({type(one) for one in module}) == 1:
                found += module
                inside |= {inner for one in module for inner in one.modules()}
    return found


def _outermost(module: nn.Module, called: set[nn.Module], passed_by: set[nn.Module]) -> Iterator[nn.Module]:
    """The module where all of it runs inside its own forward, else the same of its children."""
    if module in called and module not in passed_by:
        yield module
        return
    for child in module.children():
        yield from _outermost(child, called, passed_by)


def _seen(model: nn.Module, device: str) -> tuple[set[nn.Module], set[nn.Module]]:
    """Which modules' forward runs in a text of two periods, and which have parts that run while their own forward does not."""
    holders: dict[nn.Module, list[nn.Module]] = {}
    for module in model.modules():
        for inner in module.modules():
            holders.setdefault(inner, []).append(module)
    called, passed_by, active = set(), set(), []

    def begin(module: nn.Module, _: Any) -> None:
        active.append(module)
        called.add(module)
        passed_by.update(holder for holder in holders[module] if holder not in active)

    def end(*_: Any) -> None:
        active.pop()

    handles = [hook for module in holders for hook in (module.register_forward_pre_hook(begin),)]
    handles += [module.register_forward_hook(end) for module in holders]
    text = torch.zeros(1, 2 * getattr(model, "period", 1) + 1, dtype=torch.long, device=device)
    cuda = [torch.cuda.current_device()] if device == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            model.to(device)(text)
    finally:
        for handle in handles:
            handle.remove()
    return called, passed_by


@contextmanager
def outside_forward() -> Iterator[None]:
    """Say what to do where a model uses weights of a block that were not gathered, as they are used outside any forward."""
    try:
        yield
    except RuntimeError as error:
        if MIXED not in str(error):
            raise
        raise RuntimeError(
            "fsdp2 cannot train this model: it uses weights of a block outside the forward of the module that holds them; use "
            "--parallel ddp, or call the module."
        ) from error
