"""s5-pytorch as an oracle of diagonal state spaces, one channel at a time: it sums one half of the pairs without a factor 2."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from baselines.first_generation.s4d import S4D
from baselines.oracles.parity.comparison import FP64, Comparison, Draw, Errors, compare, leaves
from baselines.second_generation.liquid_s4 import LiquidS4

PACKAGE = "s5-pytorch"
WIDTH, HEADS, TIME = 8, 2, 150


def _whole_layer(ours: nn.Module, scan: str) -> Errors:
    """A layer against `discretize_zoh` and one of the package's scans, and the gated map behind it.

    In float64, for theirs loses digits of e^(dt A) - 1 in float32.
    """
    module = import_module("s5.s5_model")

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        return functional_call(ours, given, (x,), strict=True)[0]

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        A, C = torch.complex(-given["log_real"].exp(), given["imaginary"]), torch.view_as_complex(given["C"])
        channels = []
        for d, step in enumerate(given["log_dt"].exp()):
            a, b = module.discretize_zoh(A[d], torch.ones_like(A[d])[:, None], step)
            rows = [getattr(module, scan)(a, b, 2 * C[d][None], given["D"][d], row[:, d, None])[0] for row in x]
            channels.append(torch.stack(rows))
        value, gate = F.linear(F.gelu(torch.cat(channels, -1)), given["out.weight"], given["out.bias"]).chunk(2, -1)
        return value * gate.sigmoid()

    return compare(our_side, their_side, {"x": Draw().normal(2, TIME, WIDTH).double()} | leaves(ours.double()))


COMPARISONS = (
    Comparison(
        "s4d",
        PACKAGE,
        "whole layer: discretize_zoh, apply_ssm, and the gated map behind it, float64",
        lambda: _whole_layer(S4D(WIDTH, HEADS, states=16), "apply_ssm"),
        FP64,
    ),
    Comparison(
        "liquid-s4",
        PACKAGE,
        "whole layer, every product: discretize_zoh, apply_ssm_liquid, and the gated map behind it, float64",
        lambda: _whole_layer(LiquidS4(WIDTH, HEADS, states=16, exact=True), "apply_ssm_liquid"),
        FP64,
    ),
)
