"""Whole layers of flash-linear-attention against ours, same weights, its kernels run by Triton's interpreter."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types

import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves
from baselines.oracles.parity.fla import interpreter
from baselines.second_generation.gla import GLA
from baselines.third_generation.deltanet import DeltaNet

PACKAGE = "flash-linear-attention"
WIDTH, HEADS = 64, 2


def _layer(file: str, name: str) -> nn.Module:
    """A layer by its file: the package `fla.layers` itself imports models that need transformers."""
    interpreter.prepare()
    import fla

    home = importlib.metadata.distribution(PACKAGE).locate_file("fla")
    if str(home) not in fla.__path__:
        fla.__path__.append(str(home))
    package = sys.modules.setdefault("fla.layers", types.ModuleType("fla.layers"))
    package.__path__ = [str(home / "layers")]
    return getattr(importlib.import_module(f"fla.layers.{file}"), name)(hidden_size=WIDTH, num_heads=HEADS)


def _gla() -> Errors:
    theirs, ours = _layer("gla", "GatedLinearAttention"), GLA(WIDTH, HEADS)

    def mine(x: Tensor, **weights: Tensor) -> Tensor:
        named = {
            "qkv.weight": torch.cat([weights[f"{part}_proj.weight"] for part in "qkv"]),
            "forget.0.weight": weights["gk_proj.0.weight"],
            "forget.1.weight": weights["gk_proj.1.weight"],
            "forget.1.bias": weights["gk_proj.1.bias"],
            "gate.weight": weights["g_proj.weight"],
            "norm.weight": weights["g_norm_swish_gate.weight"],
            "out.weight": weights["o_proj.weight"],
        }
        return functional_call(ours, named, (x,), strict=True)[0]

    given = leaves(theirs) | {"x": Draw(2).normal(1, 70, WIDTH)}
    return compare(mine, lambda x, **weights: functional_call(theirs, weights, (x,))[0], given)


def _deltanet() -> Errors:
    """On 50 tokens: up to 64 theirs runs its recurrent kernel, and its chunked one refuses float32."""
    theirs, ours = _layer("delta_net", "DeltaNet"), DeltaNet(WIDTH, HEADS)

    def mine(x: Tensor, **weights: Tensor) -> Tensor:
        named = {
            "qkv.weight": torch.cat([weights[f"{part}_proj.weight"] for part in "qkv"]),
            "convolution.weight": torch.cat([weights[f"{part}_conv1d.weight"] for part in "qkv"]),
            "rate.weight": weights["b_proj.weight"],
            "norm.weight": weights["o_norm.weight"],
            "out.weight": weights["o_proj.weight"],
        }
        return functional_call(ours, named, (x,), strict=True)[0]

    given = leaves(theirs) | {"x": Draw(2).normal(1, 50, WIDTH)}
    return compare(mine, lambda x, **weights: functional_call(theirs, weights, (x,))[0], given)


_WHERE = "whole layer in Triton's interpreter"
COMPARISONS = (
    Comparison("gla", PACKAGE, f"{_WHERE}: GatedLinearAttention", _gla, obstacle=interpreter.reason),
    Comparison("deltanet", PACKAGE, f"{_WHERE}: DeltaNet", _deltanet, obstacle=interpreter.reason),
)
