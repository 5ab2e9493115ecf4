"""transformers' Kimi Delta Attention as an oracle for the whole layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.oracles.parity.comparison import Comparison, Errors
from baselines.oracles.parity.hugging_face import HEADS, PACKAGE, WIDTH, compare_layers, configuration, modelling
from baselines.third_generation.kda import KimiDeltaAttention


def layer() -> Errors:
    """The layer against KimiLinearDeltaAttention, whose output gate has no bias."""
    module, ours = modelling("kimi_linear"), KimiDeltaAttention(WIDTH, HEADS)
    config = configuration(
        "kimi_linear",
        hidden_size=WIDTH,
        linear_num_heads=HEADS,
        linear_head_dim=WIDTH // HEADS,
        rms_norm_eps=ours.norm.eps,
    )
    names = {
        "convolution.weight": "conv1d.weight",
        "step.0.weight": "forget_gate.f_a_proj.weight",
        "step.1.weight": "forget_gate.f_b_proj.weight",
        "step_bias": "forget_gate.dt_bias",
        "rate.weight": "b_proj.weight",
        "gate.0.weight": "g_a_proj.weight",
        "gate.1.weight": "g_b_proj.weight",
        "norm.weight": "o_norm.weight",
        "out.weight": "o_proj.weight",
    }

    def weights(given: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: given[their] for name, their in names.items()} | {
            "qkv.weight": torch.cat([given[f"{part}_proj.weight"] for part in "qkv"]),
            "A_log": given["forget_gate.A_log"].flatten(),
            "gate.1.bias": torch.zeros(WIDTH),
        }

    theirs = module.KimiLinearDeltaAttention(config, layer_idx=0).eval()
    # Its softplus is log(1 + exp), which has few digits left where a step is small.
    theirs.forget_gate.dt_bias.data.zero_()
    theirs.forget_gate.A_log.data.fill_(math.log(0.1))
    return compare_layers(ours, weights, theirs, module)


COMPARISONS = (Comparison("kda", PACKAGE, "whole layer: KimiLinearDeltaAttention, PyTorch path", layer),)
