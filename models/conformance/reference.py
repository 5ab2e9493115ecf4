"""The conformance kit's question about a reference recurrence: the fast form is the plain loop, forward and backward, in float64.

A class names its loop, `reference = staticmethod(loop)` with `loop(module, x, state) -> (y, state)`: what the module's `forward`
would give, computed token by token from the same parameters. (A whole language model's loop takes tokens and gives logits.) A
class with a setting `provider` has one already, itself under `provider="recurrence"`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.conformance.subject import LEAST, Finding, Subject, cut, difference, first_apart

EXACT = 1e-8  # float64, relative

Loop = Callable[[nn.Module, Tensor, Any], tuple[Tensor, Any]]


def reference(subject: Subject) -> Finding:
    """Outputs of a text, whole and in pieces, and all gradients are those of the loop that the class names."""
    loop, plain, what = _loop(subject)
    if loop is None:
        return (
            True,
            "not asked",
            "the class names no reference = staticmethod(loop), and has no provider to compare with",
        )
    x = _text(subject)
    right, its_gradients = _answer(plain, lambda x, state: loop(plain, x, state), x, [])
    fast, worst = copy.deepcopy(subject.mixer).double(), 0.0
    for cuts in ([], [1, 37, x.shape[1] - 5]):
        got, gradients = _answer(fast, fast, x, cuts)
        error = difference(got, right)
        if not error <= EXACT:
            token = first_apart(got, right, EXACT)
            return (
                False,
                error,
                f"the fast form leaves {what} at token {token} of {x.shape[1]} ({len(cuts) + 1} pieces)",
            )
        apart, name = _largest(gradients, its_gradients)
        if not apart <= EXACT:
            return False, apart, f"the outputs are those of {what}, the gradient of {name} is not (at most {EXACT:g})"
        worst = max(worst, error, apart)
    return True, worst, f"{x.shape[1]} tokens against {what}, outputs and gradients in float64, at most {EXACT:g}"


def _loop(subject: Subject) -> tuple[Loop | None, nn.Module | None, str]:
    """The loop, a module in float64 to call it with, and what it is called."""
    mixer, cls = subject.mixer, subject.entry.cls
    own = getattr(mixer, "reference", None)
    if own is not None:
        return own, copy.deepcopy(mixer).double(), f"the class's reference {getattr(own, '__name__', '')}".rstrip()
    if "provider" not in inspect.signature(cls).parameters:
        return None, None, ""
    twin = Subject(subject.name, subject.size, {**subject.settings, "provider": "recurrence"}).build().double()
    twin.load_state_dict(subject.model.state_dict())
    plain = twin if subject.entry.is_language_model else twin.blocks[0].mixer
    return (lambda module, x, state: module(x, state)), plain, "provider 'recurrence'"


def _text(subject: Subject) -> Tensor:
    """Two rows of more than a period and a chunk: tokens, or what a mixer is given in their place."""
    time = max(subject.period, LEAST) + 21
    if subject.entry.is_language_model:
        return subject.tokens(2, time)
    draw = torch.Generator().manual_seed(3)
    return torch.randn(2, time, subject.size.width, generator=draw, dtype=torch.float64)


def _answer(module: nn.Module, form: Callable, x: Tensor, cuts: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs of a text in pieces, and the gradient that a random sum of them has at x and at every parameter."""
    inputs = {name: p for name, p in module.named_parameters()}
    if x.is_floating_point():
        inputs["the input"] = x = x.clone().requires_grad_()
    ys, state = [], None
    for piece in cut(x, cuts):
        y, state = form(piece, state)
        ys.append(y)
    y = torch.cat(ys, 1)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    grads = torch.autograd.grad((y * weights).sum(), list(inputs.values()), allow_unused=True)
    found = {n: torch.zeros_like(i) if g is None else g for (n, i), g in zip(inputs.items(), grads, strict=True)}
    return y.detach(), found


def _largest(got: dict[str, Tensor], right: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference of gradients, and whose it is; what is nothing but rounding is not compared with itself."""
    floor = 1e-3 * torch.stack([g.norm() for g in right.values()]).norm()
    errors = {name: ((got[name] - g).norm() / (g.norm() + floor)).item() for name, g in right.items()}
    name = max(errors, key=errors.get)
    return errors[name], name
