"""One call of an operation through one provider on a device, held to the operation's law in float64: values and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from models.ops.providers import NotCovered, ProviderAbsent, operations
from runner.preflight.device.calls import Call

LAW = "recurrence"
# Norm of the difference over the norm of the law's. On CUDA packages multiply float32 in TF32, whose rounding is 2^-11.
FORWARD = {"float32": 3e-3, "bfloat16": 3e-2}
BACKWARD = {"float32": 1e-2, "bfloat16": 1e-1}
ON_CPU = 1e-3  # of float32 there, both ways: the law itself is 1.5e-4 off in a gradient that nearly cancels
NOTHING = 1e-9  # a norm below this is none
BESIDE = 1e-3  # of the largest gradient's norm: what is smaller is the rounding of sums of that size


@dataclass(frozen=True)
class Answer:
    """What a form returns, and the gradients of a weighted sum of it; all tensors of floating point, in order."""

    values: tuple[Tensor, ...]
    gradients: tuple[Tensor | None, ...]


def law(call: Call, device: str) -> Answer:
    """The law's answer in float64, on the inputs as they are rounded in the call."""
    inputs, named = tree_map_only(Tensor, _double, (call.inputs, call.named))
    return answer(call, LAW, inputs, named, device)


def answer(call: Call, provider: str, inputs: Any, named: Any, device: str) -> Answer:
    """What `provider` makes of a call on a device. Raises what its form raises."""
    inputs, named = tree_map_only(Tensor, lambda x: x.to(device), (inputs, named))
    asked = [x for x in tree_leaves((inputs, named)) if _is_asked(x)]
    form = operations()[call.operation].form(provider)
    if call.decodes:
        with torch.no_grad():
            return Answer(_floats(form(*inputs, **named)), ())
    for x in asked:
        x.requires_grad_()
    values = _floats(form(*inputs, **named))
    reached = [(x, weights) for x, weights in zip(values, _weights(values), strict=True) if x.requires_grad]
    gradients = torch.autograd.grad(
        [x for x, _ in reached], asked, [weights for _, weights in reached], allow_unused=True
    )
    return Answer(tuple(x.detach() for x in values), gradients)


def held(call: Call, provider: str, expected: Answer, device: str) -> dict[str, Any]:
    """How far a provider's answer is from the law's: errors and a status, "holds", "is off", "not covered" or "failed"."""
    try:
        ours = answer(call, provider, call.inputs, call.named, device)
    except NotCovered as error:
        return {"status": "not covered", "reason": str(error)}
    except ProviderAbsent as error:
        return {"status": "absent", "reason": str(error)}
    except Exception as error:  # whatever a kernel or a package raises is what this is to find out
        return {
            "status": "failed",
            "reason": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        }
    return _judged(call, ours, expected, device)


def _judged(call: Call, ours: Answer, expected: Answer, device: str) -> dict[str, Any]:
    shapes = [[tuple(x.shape) for x in side.values] for side in (ours, expected)]
    if shapes[0] != shapes[1]:
        return {"status": "is off", "reason": f"its outputs have the shapes {shapes[0]}, the law's {shapes[1]}"}
    forward = max(map(_error, ours.values, expected.values), default=0.0)
    largest = max((x.norm().item() for x in expected.gradients if x is not None), default=0.0)
    backward = max(
        (_error(*pair, BESIDE * largest) for pair in zip(ours.gradients, expected.gradients, strict=True)), default=None
    )
    exact = device == "cpu" and call.dtype == "float32"
    bounds = (ON_CPU, ON_CPU) if exact else (FORWARD[call.dtype], BACKWARD[call.dtype])
    wrong = [
        f"{name} {error:.1e}, bound {bound:g}"
        for name, error, bound in zip(("forward", "backward"), (forward, backward), bounds, strict=True)
        if error is not None and not error < bound
    ]
    errors = {
        name: error if error is None or math.isfinite(error) else None
        for name, error in (("forward", forward), ("backward", backward))
    }
    return {"status": "is off" if wrong else "holds", "reason": "; ".join(wrong), **errors}


def _error(ours: Tensor | None, expected: Tensor | None, least: float = 0.0) -> float:
    """The norm of the difference over the norm of what is expected, or over `least`; what nothing depends on is 0."""
    if ours is None and expected is None:
        return 0.0
    ours, expected = (torch.zeros_like(other) if x is None else x for x, other in ((ours, expected), (expected, ours)))
    ours, expected = _double(ours.cpu()), _double(expected.cpu())
    norm = max(expected.norm().item(), least)
    error = (ours - expected).norm().item() / (norm if norm > NOTHING else 1.0)
    return error if math.isfinite(error) else math.inf  # no number is beyond every bound, and max() would lose it


def _double(x: Tensor) -> Tensor:
    if x.is_complex():
        return x.to(torch.complex128)
    return x.to(torch.float64) if x.is_floating_point() else x


def _is_asked(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _floats(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(x for x in tree_leaves(outputs) if _is_asked(x))


def _weights(values: tuple[Tensor, ...]) -> list[Tensor]:
    """What each output counts in the sum that is differentiated: the same draws on every device and in every dtype."""
    drawn = []
    for place, x in enumerate(values):
        generator = torch.Generator().manual_seed(place)
        kind = torch.complex128 if x.is_complex() else torch.float64
        drawn.append(torch.randn(x.shape, generator=generator, dtype=kind).to(x.device, x.dtype))
    return drawn
