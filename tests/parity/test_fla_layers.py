"""Whole layers of flash-linear-attention against ours, same weights, its kernels run by Triton's interpreter.

Runs with TRITON_INTERPRET=1 where fla-core, triton and flash-linear-attention (`pip install --no-deps`, for its layers) are
installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.oracles import triton_interpreter
from baselines.oracles.comparison import FP32, Draw, compare, leaves, version
from baselines.second_generation.gla import GLA
from baselines.third_generation.deltanet import DeltaNet

PACKAGE = "flash-linear-attention"
REASON = triton_interpreter.reason() or ("" if version(PACKAGE) else f"pip install --no-deps {PACKAGE}==0.6.0")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
WIDTH, HEADS = 64, 2


def layer(file: str, name: str, **settings) -> nn.Module:
    """A layer by its file: the package `fla.layers` itself imports models that need transformers."""
    triton_interpreter.prepare()
    import fla

    home = importlib.metadata.distribution(PACKAGE).locate_file("fla")
    if str(home) not in fla.__path__:
        fla.__path__.append(str(home))
    package = sys.modules.setdefault("fla.layers", types.ModuleType("fla.layers"))
    package.__path__ = [str(home / "layers")]
    return getattr(importlib.import_module(f"fla.layers.{file}"), name)(**settings)


def test_gla_layer_is_ours():
    """Theirs has no bias on the output gate, so ours is zero."""
    theirs = layer("gla", "GatedLinearAttention", hidden_size=WIDTH, num_heads=HEADS)
    ours = GLA(WIDTH, HEADS)
    given = leaves(theirs) | {"x": Draw(2).normal(1, 70, WIDTH)}

    def mine(x: Tensor, **weights: Tensor) -> Tensor:
        named = {
            "qkv.weight": torch.cat([weights[f"{part}_proj.weight"] for part in "qkv"]),
            "forget.0.weight": weights["gk_proj.0.weight"],
            "forget.1.weight": weights["gk_proj.1.weight"],
            "forget.1.bias": weights["gk_proj.1.bias"],
            "gate.weight": weights["g_proj.weight"],
            "gate.bias": torch.zeros(WIDTH),
            "norm.weight": weights["g_norm_swish_gate.weight"],
            "out.weight": weights["o_proj.weight"],
        }
        return functional_call(ours, named, (x,), strict=True)[0]

    errors = compare(mine, lambda x, **weights: functional_call(theirs, weights, (x,))[0], given)
    assert max(errors) < FP32, errors


def test_deltanet_layer_is_ours():
    """On 50 tokens: up to 64 theirs runs its recurrent kernel, and its chunked one refuses float32."""
    theirs = layer("delta_net", "DeltaNet", hidden_size=WIDTH, num_heads=HEADS)
    ours = DeltaNet(WIDTH, HEADS)
    given = leaves(theirs) | {"x": Draw(2).normal(1, 50, WIDTH)}

    def mine(x: Tensor, **weights: Tensor) -> Tensor:
        named = {
            "qkv.weight": torch.cat([weights[f"{part}_proj.weight"] for part in "qkv"]),
            "convolution.weight": torch.cat([weights[f"{part}_conv1d.weight"] for part in "qkv"]),
            "rate.weight": weights["b_proj.weight"],
            "norm.weight": weights["o_norm.weight"],
            "out.weight": weights["o_proj.weight"],
        }
        return functional_call(ours, named, (x,), strict=True)[0]

    errors = compare(mine, lambda x, **weights: functional_call(theirs, weights, (x,))[0], given)
    assert max(errors) < FP32, errors
