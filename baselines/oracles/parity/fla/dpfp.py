"""fla-core's DPFP feature map and naive delta rule as an oracle for the whole layer of fast weights."""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.attention.fast_weights import FastWeights
from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves
from baselines.oracles.parity.fla.naive import PACKAGE, naive, turned

WIDTH, HEADS, TIME, NU = 48, 3, 150, 3
HEAD = WIDTH // HEADS


def _feature_map() -> nn.Module:
    """Their feature map of `nu`; its class alone is read from the file, which as a module imports Triton."""
    path = Path(importlib.metadata.distribution(PACKAGE).locate_file("fla/modules/feature_map.py"))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [part for part in tree.body if isinstance(part, ast.ClassDef) and part.name == "DPFPFeatureMap"]
    found = {"nn": nn, "torch": torch}
    exec(compile(tree, str(path), "exec"), found)
    return found["DPFPFeatureMap"](HEAD, NU)


def layer() -> Errors:
    """The layer and its state against the map, divided by its sum, and `delta_rule_recurrence`, which scales q by its width."""
    ours, phi, oracle = FastWeights(WIDTH, HEADS, nu=NU), _feature_map(), naive("delta_rule", "delta_rule_recurrence")
    weight = {name: 20 * value for name, value in leaves(ours).items()}
    inputs = {"x": Draw(3).normal(2, TIME, WIDTH)} | {name: value / WIDTH**0.5 for name, value in weight.items()}

    def our_side(x: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        y, (matrix,) = functional_call(ours, given, (x,))
        return y, matrix

    def their_side(x: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, rate = (x @ given["project.weight"].T).split([WIDTH, WIDTH, WIDTH, HEADS], -1)
        q, k, v = (part.unflatten(-1, (HEADS, HEAD)) for part in (q, k, v))
        q, k = (phi(part) / phi(part).sum(-1, keepdim=True) for part in (q, k))
        y, matrix = oracle(*turned(q * (2 * NU) ** 0.5, k, v, rate.sigmoid()))
        return turned(y)[0].flatten(2) @ given["out.weight"].T, matrix

    return compare(our_side, their_side, inputs)


COMPARISONS = (
    Comparison("fast-weights", PACKAGE, "whole layer and state: DPFPFeatureMap, delta_rule_recurrence", layer),
)
