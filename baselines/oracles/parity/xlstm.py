"""NXAI's xlstm, the authors' own code, as an oracle for whole blocks of sLSTM and mLSTM and for the layer of xLSTM 7B."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.gated_ancestors.slstm import SLSTM
from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves
from baselines.second_generation.mlstm import MLSTM, XLSTM7B

PACKAGE = "xlstm"
WIDTH, HEADS, TIME = (
    64,
    4,
    128,
)  # their feed-forward and inner widths are multiples of 64, as are texts in chunks of their 7B
Weights = dict[str, Tensor]


def _part(module: str, name: str) -> Any:
    return getattr(import_module(f"xlstm.{module}"), name)


def _compared(
    ours: nn.Module, theirs: nn.Module, renamed: Callable[[Weights], Weights], residual: bool, state: Any = None
) -> Errors:
    """Our mixer from a state, and their layer, or their block, which adds its input."""

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        y = functional_call(ours, renamed(given), (x, state), strict=True)[0]
        return x + y if residual else y

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        y = functional_call(theirs, given, (x,))
        return y[0] if isinstance(y, tuple) else y

    given = {name: weight for name, weight in leaves(theirs).items() if theirs.get_parameter(name).requires_grad}
    return compare(our_side, their_side, {"x": Draw().normal(2, TIME, WIDTH)} | given)


def slstm() -> Errors:
    """The whole sLSTM block, whose module "fgate" feeds the input gate and "igate" the forget gate; norms keep weights less 1."""
    layer = _part("blocks.slstm.layer", "sLSTMLayerConfig")(
        embedding_dim=WIDTH, num_heads=HEADS, backend="vanilla", dtype="float32"
    )
    feed = _part("components.feedforward", "FeedForwardConfig")(embedding_dim=WIDTH)
    block = _part("blocks.slstm.block", "sLSTMBlock")
    config = block.config_class(slstm=layer, feedforward=feed, _num_blocks=1, _block_idx=0)
    units = WIDTH // HEADS

    def renamed(given: Weights) -> Weights:
        gates = {gate: given[f"xlstm.{gate}gate.weight"] for gate in "ifzo"}
        pairs = (gates["f"], gates["i"]), (gates["z"], gates["o"])
        return {
            "norm.weight": 1 + given["xlstm_norm.weight"],
            "feed_norm.weight": 1 + given["ffn_norm.weight"],
            "convolution.weight": given["xlstm.conv1d.conv.weight"],
            "convolution.bias": given["xlstm.conv1d.conv.bias"],
            "inputs": torch.stack([torch.cat(pair, 1) for pair in pairs]),
            "recurrent": given["xlstm.slstm_cell._recurrent_kernel_"],
            "bias": given["xlstm.slstm_cell._bias_"].view(4, HEADS, units),
            "head_norm.weight": 1 + given["xlstm.group_norm.weight"],
            "gate_up.weight": given["ffn.proj_up.weight"],
            "down.weight": given["ffn.proj_down.weight"],
        }

    return _compared(SLSTM(WIDTH, HEADS, inner=128), block(config), renamed, residual=True)


def mlstm() -> Errors:
    """The whole mLSTM block in its parallel form."""
    layer = _part("blocks.mlstm.layer", "mLSTMLayerConfig")(embedding_dim=WIDTH, num_heads=HEADS, context_length=TIME)
    block = _part("blocks.mlstm.block", "mLSTMBlock")
    config = block.config_class(mlstm=layer, _num_blocks=1, _block_idx=0)

    def renamed(given: Weights) -> Weights:
        cell = "xlstm.mlstm_cell"
        return {
            "norm.weight": 1 + given["xlstm_norm.weight"],
            "up.weight": given["xlstm.proj_up.weight"],
            "convolution.weight": given["xlstm.conv1d.conv.weight"],
            "convolution.bias": given["xlstm.conv1d.conv.bias"],
            "queries_keys": torch.stack([given[f"xlstm.{part}_proj.weight"] for part in "qk"]),
            "values": given["xlstm.v_proj.weight"][None],
            "gates.weight": torch.cat([given[f"{cell}.{gate}gate.weight"] for gate in "if"]),
            "gates.bias": torch.cat([given[f"{cell}.{gate}gate.bias"] for gate in "if"]),
            "head_norm.weight": 1 + given[f"{cell}.outnorm.weight"],
            "skip": given["xlstm.learnable_skip"],
            "down.weight": given["xlstm.proj_down.weight"],
        }

    return _compared(MLSTM(WIDTH, HEADS), block(config), renamed, residual=True)


def xlstm_7b() -> Errors:
    """The mLSTM layer of xLSTM 7B in its chunkwise form in plain PyTorch, which begins with m = 0: so do we here."""
    backend = _part("xlstm_large.model", "mLSTMBackendConfig")(
        chunkwise_kernel="chunkwise--native_autograd",
        sequence_kernel="native_sequence__native",
        step_kernel="native",
        mode="train",
        autocast_kernel_dtype="float32",
    )
    config = _part("xlstm_large.model", "mLSTMLayerConfig")(embedding_dim=WIDTH, num_heads=HEADS, mlstm_backend=backend)

    def renamed(given: Weights) -> Weights:
        return {
            "project.weight": torch.cat([given[f"{part}.weight"] for part in ("q", "k", "v", "ogate_preact")]),
            "gates.weight": torch.cat([given[f"{gate}gate_preact.weight"] for gate in "if"]),
            "gates.bias": torch.cat([theirs.igate_preact.bias, given["fgate_preact.bias"]]),
            "head_norm.weight": given["multihead_norm.weight"],
            "out.weight": given["out_proj.weight"],
        }

    theirs = _part("xlstm_large.model", "mLSTMLayer")(config)
    # The norm behind hides how much is written in all: the gradient of that bias is what rounding leaves of a sum.
    theirs.igate_preact.bias.requires_grad_(False)
    own = WIDTH // HEADS
    begin = torch.zeros(2, HEADS, own // 2, own + 1), torch.zeros(2, HEADS)
    return _compared(XLSTM7B(WIDTH, HEADS), theirs, renamed, residual=False, state=begin)


COMPARISONS = (
    Comparison("slstm", PACKAGE, "whole block: sLSTMBlock, vanilla backend", slstm),
    Comparison("mlstm", PACKAGE, "whole block: mLSTMBlock, parallel form", mlstm),
    Comparison("xlstm-7b", PACKAGE, "whole layer: mLSTMLayer of xlstm_large, chunkwise in PyTorch", xlstm_7b),
)
