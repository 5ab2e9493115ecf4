"""torchscale's RetNet, the authors' own layer, as an oracle for the whole retention layer."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.func import functional_call

from baselines.first_generation.retnet import RetNet
from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves

PACKAGE = "torchscale"
WIDTH, HEADS, TIME = 32, 4, 150


def _positions() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Sines, cosines [t, d] for neighbouring pairs, and decays [h, t, t]: what the authors' model hands to its layers.

    Their rows are divided by a sum besides, which the norm behind takes out again.
    """
    half = WIDTH // HEADS // 2
    angle = (1.0 / 10000 ** torch.linspace(0, 1, half)).repeat_interleave(2)
    turn = torch.arange(TIME)[:, None] * angle
    distance = torch.arange(TIME)[:, None] - torch.arange(TIME)
    decay = (1 - 2.0 ** (-5 - torch.arange(HEADS)))[:, None, None] ** distance.clamp(min=0)
    return (turn.sin(), turn.cos()), decay * (distance >= 0)


def layer() -> Errors:
    """The retention layer against MultiScaleRetention's parallel form.

    It rotates neighbouring channels where ours pairs i with i + d/2, so rows of W_q and W_k are taken in another order; norms
    without epsilon, since its rows are scaled before the norm.
    """
    module = import_module("torchscale.component.multiscale_retention")
    settings = SimpleNamespace(multiway=False, layernorm_eps=0.0)
    theirs = module.MultiScaleRetention(settings, WIDTH, 2 * WIDTH, HEADS)
    ours = RetNet(WIDTH, HEADS)
    ours.norm.eps = 0.0
    inputs = {"x": Draw().normal(2, TIME, WIDTH)} | leaves(theirs)
    positions = _positions()

    def halves(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (HEADS, -1, 2)).transpose(1, 2).flatten(0, 2)

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        weights = {
            "queries.weight": halves(given["q_proj.weight"]),
            "keys.weight": halves(given["k_proj.weight"]),
            "values.weight": given["v_proj.weight"],
            "gate.weight": given["g_proj.weight"],
            "out.weight": given["out_proj.weight"],
        }
        return functional_call(ours, weights, (x,))[0]

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        return functional_call(theirs, given, (x, positions))

    return compare(our_side, their_side, inputs)


COMPARISONS = (Comparison("retnet", PACKAGE, "whole layer: MultiScaleRetention, parallel form", layer),)
