"""performer-pytorch as oracle of positive features: its causal sums without the epsilon, which makes them look ahead."""

from __future__ import annotations

import importlib

from torch import Tensor

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare_forms

PACKAGE = "performer-pytorch"
TIME, HEADS, HEAD = 150, 3, 16


def _theirs():
    return importlib.import_module("performer_pytorch.performer_pytorch")


def _turned(*tensors: Tensor) -> list[Tensor]:
    """[b, t, h, d] <-> [b, h, t, d]."""
    return [x.transpose(1, 2) for x in tensors]


def sums() -> Errors:
    """Products of positive features over their sum against `causal_linear_attention_noncuda`."""
    oracle, draw = _theirs().causal_linear_attention_noncuda, Draw()
    inputs = {name: draw.gate(2, TIME, HEADS, HEAD) for name in "qk"} | {"v": draw.normal(2, TIME, HEADS, HEAD)}

    def ours(form, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return form(q, k, v)[0]

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _turned(oracle(*_turned(q, k, v), eps=0.0))[0]

    return compare_forms("kernel attention", ours, theirs, inputs)


COMPARISONS = (
    Comparison("linear-attention", PACKAGE, "sums of given features: causal_linear_attention_noncuda, eps 0", sums),
)
