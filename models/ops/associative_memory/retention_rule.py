"""What is fixed about a memory of MIRAS: its network, its loss, and how it retains.

Losses are given by the negative gradient b(e) with respect to what the memory answers, e = v - M(k):

    l2     e                                                             of 1/2 |e|^2
    lp     tanh(s e) (e^2 + 1e-6)^((p - 1) / 2)                          of 1/p |e|_p^p, its sign and absolute value smoothed
    huber  e min(1, delta / |e|), or each channel clamped to +-delta     of 1/2 |e|^2 up to delta, and delta |e| beyond

The factors p of the paper's gradients are part of the rate, so that p = 2 is l2. How the memory W comes from what is carried, A:

    l2     W = A
    lq     W = A / max(|A|_q, floor)^(q - 2)                             the norm that of a layer's whole matrix in a head
    kl     W = mass softmax(A) over the inputs of each output            A is a logarithm
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.neural_memory.recurrence import ACTIVATIONS, NORM_EPSILON

SMOOTH = 1e-6  # |e| is sqrt(e^2 + SMOOTH), MIRAS section 5.4
LOSSES, RETENTIONS = ("l2", "lp", "huber"), ("l2", "lq", "kl")


@dataclass(frozen=True)
class RetentionRule:
    """What is fixed about a memory; letters as in this file. Raises ValueError for what no memory can have.

    `chunk` tokens share one gradient anchor; `residual` makes the network `x + LN(f(x))`. `sharpness` is s, None for the sign and
    the absolute value themselves. `norm_floor` keeps a small A from being blown up by its own norm: at 1, W is never longer than
    1, nor than A. `weight_floor` is the least weight of which a logarithm is taken; `mass` is a slice's sum, None for the
    square root of its length.
    """

    chunk: int = 16
    activation: Literal["gelu", "silu"] = "gelu"
    residual: bool = True
    loss: Literal["l2", "lp", "huber"] = "l2"
    power: float = 3.0
    sharpness: float | None = 10.0
    per_channel: bool = False
    retention: Literal["l2", "lq", "kl"] = "l2"
    norm: float = 4.0
    norm_floor: float = 1.0
    weight_floor: float = 1e-3
    mass: float | None = None

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"A memory's chunk must be at least 1 token, not {self.chunk}.")
        for kind, value, known in (
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("loss", self.loss, LOSSES),
            ("retention", self.retention, RETENTIONS),
        ):
            if value not in known:
                raise ValueError(f"Unknown {kind} of a memory '{value}'; choose one of: {', '.join(known)}.")
        if self.power < 1 or self.norm < 2:
            raise ValueError(f"A memory needs p >= 1 and q >= 2, not p = {self.power} and q = {self.norm}.")
        if min(self.norm_floor, self.weight_floor) <= 0 or (self.mass is not None and self.mass <= 0):
            raise ValueError("norm_floor, weight_floor and mass must be greater than 0; make them so.")


def bent(e: Tensor, threshold: Tensor, rule: RetentionRule) -> Tensor:
    """b(e), of errors e [..., out] and thresholds delta [..., 1]."""
    if rule.loss == "lp":
        if rule.sharpness is None:
            return e.sign() * e.abs() ** (rule.power - 1)
        return torch.tanh(rule.sharpness * e) * (e.square() + SMOOTH) ** ((rule.power - 1) / 2)
    if rule.loss == "huber" and rule.per_channel:
        return torch.minimum(torch.maximum(e, -threshold), threshold)
    if rule.loss == "huber":
        length = torch.linalg.vector_norm(e, dim=-1, keepdim=True)
        over = length > threshold
        # The quotient is taken where it counts alone: an infinite threshold or an error of 0 would leave no gradient.
        share = threshold.where(over, 1.0) / length.where(over, 1.0)
        return e * share
    return e


def error(z: Tensor, k: Tensor, v: Tensor, threshold: Tensor, rule: RetentionRule) -> Tensor:
    """Negative gradient of the loss with respect to f's output z: b(v - z), or LN's backward of b(v - k - LN(z))."""
    if not rule.residual:
        return bent(v - z, threshold, rule)
    centred = z - z.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + NORM_EPSILON)
    normed = centred * scale
    up = bent(v - k - normed, threshold, rule)
    return (up - up.mean(-1, keepdim=True) - normed * (up * normed).mean(-1, keepdim=True)) * scale


def divisor(carried: Tensor, rule: RetentionRule) -> Tensor:
    """What a layer A [..., in, out] is divided by to be its memory, [..., 1, 1]; 1 unless it is retained by lq."""
    if rule.retention != "lq":
        return torch.ones_like(carried[..., :1, :1])
    length = torch.linalg.vector_norm(carried, ord=rule.norm, dim=(-2, -1), keepdim=True)
    return length.clamp_min(rule.norm_floor) ** (rule.norm - 2)


def on_simplex(logarithms: Tensor, rule: RetentionRule) -> Tensor:
    """The memory whose logarithms are given, [..., in, out]: every output's weights are positive and sum to the mass."""
    mass = logarithms.shape[-2] ** 0.5 if rule.mass is None else rule.mass
    return mass * torch.softmax(logarithms, -2)


def network(weights: tuple[Tensor, ...], x: Tensor, rule: RetentionRule) -> Tensor:
    """The memory read without writing, x [..., n, in] -> [..., n, out]."""
    y = x @ weights[0]
    for weight in weights[1:]:
        y = ACTIVATIONS[rule.activation](y) @ weight
    return x + F.layer_norm(y, y.shape[-1:], eps=NORM_EPSILON) if rule.residual else y
