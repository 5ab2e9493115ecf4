"""performer-pytorch as oracle of positive features: its causal sums without the epsilon, which makes them look ahead."""

from __future__ import annotations

import importlib

from torch import Tensor

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare_forms
from models.ops.kernel_attention.features import softmax_features

PACKAGE = "performer-pytorch"
TIME, HEADS, HEAD, FEATURES = 150, 3, 16, 44


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


def positive_features() -> Errors:
    """FAVOR+ attention against `softmax_kernel` and `causal_linear_attention_noncuda`, both without their epsilon."""
    package, draw = _theirs(), Draw()
    inputs = {name: draw.normal(2, TIME, HEADS, HEAD) for name in "qkv"}
    rows = package.gaussian_orthogonal_random_matrix(FEATURES, HEAD)

    def ours(form, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return form(softmax_features(q, rows), softmax_features(k, rows), v, kernel="exponential")[0]

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = _turned(q, k, v)
        q, k = (
            package.softmax_kernel(x, projection_matrix=rows, is_query=is_query, eps=0.0)
            for x, is_query in ((q, True), (k, False))
        )
        return _turned(package.causal_linear_attention_noncuda(q, k, v, eps=0.0))[0]

    return compare_forms("kernel attention", ours, theirs, inputs)


COMPARISONS = (
    Comparison(
        "performer",
        PACKAGE,
        "positive features and their sums: softmax_kernel, causal_linear_attention_noncuda, eps 0",
        positive_features,
    ),
    Comparison("linear-attention", PACKAGE, "sums of given features: causal_linear_attention_noncuda, eps 0", sums),
)
