"""RecurrentGemma, in transformers, as an oracle for Griffin's local attention; its recurrence is compared under `hawk`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from baselines.attention.local_attention import LocalAttention
from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves
from baselines.oracles.parity.hugging_face import PACKAGE, configuration, modelling

WIDTH, HEADS, TIME, WINDOW = 32, 4, 150, 20


def local_attention() -> Errors:
    """Local multi-query attention against RecurrentGemmaAttention under a banded mask, its softmax written out."""
    ours, module = LocalAttention(WIDTH, HEADS, WINDOW), modelling("recurrent_gemma")
    config = configuration(
        "recurrent_gemma",
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=WIDTH // HEADS,
        attention_window_size=WINDOW,
        attn_implementation="eager",
    )
    theirs = module.RecurrentGemmaAttention(config, layer_idx=0).eval()
    distance = torch.arange(TIME)[:, None] - torch.arange(TIME)
    hidden = (distance < 0) | (distance >= WINDOW)
    mask = torch.zeros(TIME, TIME).masked_fill(hidden, torch.finfo(torch.float32).min)[None, None]

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        weights = {
            "query.weight": given["q_proj.weight"],
            "key_value.weight": torch.cat([given["k_proj.weight"], given["v_proj.weight"]]),
            "out.weight": given["o_proj.weight"],
            "out.bias": given["o_proj.bias"],
        }
        return functional_call(ours, weights, (x,), strict=True)[0]

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        places = torch.arange(TIME)[None]
        return functional_call(theirs, given, (x,), {"position_ids": places, "attention_mask": mask})[0]

    return compare(our_side, their_side, {"x": Draw().normal(2, TIME, WIDTH)} | leaves(theirs))


COMPARISONS = (
    Comparison(
        "local-attention", PACKAGE, "whole layer: RecurrentGemmaAttention, eager, under a banded mask", local_attention
    ),
)
