"""A module in pieces against the plain loop that its class names: outputs and all gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shaken(module: nn.Module, amount: float = 0.1) -> nn.Module:
    """The module in float64 with every parameter moved a little, so that nothing that starts at zero hides a fault."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return module


def in_pieces(module: nn.Module, x: Tensor, sizes: list[int]) -> tuple[Tensor, object]:
    """y and the last state of x [b, t, ..] read in pieces of these sizes, the last one for all the rest."""
    sizes, ys, state, start = list(sizes), [], None, 0
    while start < x.shape[1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        y, state = module(x[:, start : start + size], state)
        ys.append(y)
        start += size
    return torch.cat(ys, 1), state


def apart(module: nn.Module, x: Tensor, sizes: list[int]) -> tuple[float, float]:
    """Largest relative errors of outputs and of gradients, of the input too where it is no tokens, against `reference`."""
    found = []
    for form in (lambda x: type(module).reference(module, x, None)[0], lambda x: in_pieces(module, x, sizes)[0]):
        given = x.clone().requires_grad_() if x.is_floating_point() else x
        y = form(given)
        way = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
        inputs = [*module.parameters(), *([given] if x.is_floating_point() else [])]
        gradients = torch.autograd.grad((y * way).sum(), inputs, allow_unused=True)
        found.append((y, [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)]))
    (right, its), (got, ours) = found
    floor = 1e-6 * max(g.norm().item() for g in its)
    backward = max(((a - b).norm() / (b.norm() + floor)).item() for a, b in zip(ours, its, strict=True))
    return ((got - right).norm() / right.norm()).item(), backward


def hold_to_equations(model: nn.Module, tokens: torch.Tensor) -> None:
    """Assert that a model is its class's loop, whole, in three pieces and forward token by token, in float64."""
    for sizes in ([tokens.shape[1]], [5, 1, 9]):
        forward, backward = apart(model, tokens, sizes)
        assert forward < 1e-12 and backward < 1e-9
    whole = model(tokens)[0]
    assert (in_pieces(model, tokens, [1])[0] - whole).norm() < 1e-12 * whole.norm()
