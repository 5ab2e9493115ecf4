"""Hugging Face's first port of Transformer-XL, made with its authors, as an oracle for the whole attention layer."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor
from torch.func import functional_call

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves
from baselines.segment_recurrent.transformer_xl import TransformerXL

PACKAGE = "pytorch-pretrained-bert"
WIDTH, HEADS, SEGMENT, MEMORY, TIME = 32, 4, 16, 24, 60


def layer() -> Errors:
    """Four segments, the last one open, against RelPartialLearnableMultiHeadAttn called once a segment.

    Its norm is left out (that of the shell stands before our layer) and its residual connection taken back; its memory, the
    detached inputs, is handed on here, as its model does.
    """
    module = import_module("pytorch_pretrained_bert.modeling_transfo_xl")
    theirs = module.RelPartialLearnableMultiHeadAttn(HEADS, WIDTH, WIDTH // HEADS, 0.0, pre_lnorm=True)
    theirs.layer_norm = torch.nn.Identity()
    for bias in (theirs.r_w_bias, theirs.r_r_bias):  # which their model draws, not the layer
        torch.nn.init.normal_(bias, std=0.02)
    ours = TransformerXL(WIDTH, HEADS, segment=SEGMENT, memory=MEMORY)
    embed = module.PositionalEmbedding(WIDTH)
    inputs = {"x": Draw().normal(2, TIME, WIDTH)} | leaves(theirs)

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        query, key_value = given["qkv_net.weight"].split([WIDTH, 2 * WIDTH])
        weights = {
            "query.weight": query,
            "key_value.weight": key_value,
            "place.weight": given["r_net.weight"],
            "out.weight": given["o_net.weight"],
            "content_bias": given["r_w_bias"],
            "place_bias": given["r_r_bias"],
        }
        return functional_call(ours, weights, (x,), strict=True)[0]

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        memory, ys = x[:, :0].transpose(0, 1), []
        for piece in x.transpose(0, 1).split(SEGMENT):
            rows, columns = len(piece), len(memory) + len(piece)
            hidden = torch.ones(rows, columns, dtype=torch.bool).triu(columns - rows + 1)
            distances = embed(torch.arange(columns - 1, -1, -1.0))
            y = functional_call(theirs, given, (piece, distances, hidden[..., None], memory))
            ys.append(y - piece)
            memory = torch.cat([memory, piece])[-MEMORY:].detach()
        return torch.cat(ys).transpose(0, 1)

    return compare(our_side, their_side, inputs)


COMPARISONS = (
    Comparison("transformer-xl", PACKAGE, "whole layer, four segments: RelPartialLearnableMultiHeadAttn", layer),
)
