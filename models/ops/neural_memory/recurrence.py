"""The reference recurrence when the state is a network: a memory that learns, token by token, what its keys mean.

    compare   u_t = gradient of 1/2 |M_a(k_t) - v_t|^2 at the anchored memory M_a
    surprise  S_t = eta_t S_{t-1} - theta_t u_t          eta: momentum, theta: rate
    forget    M_t = (1 - alpha_t) M_{t-1} + S_t          1 - alpha: keep
    read      y_t = M_t(q_t)

(Titans, Behrouz et al. 2025, arXiv 2501.00663, eqs. 9-15 and section 3.2; the squared loss's factor 2 is part of theta.) The
anchor a is the last multiple of `chunk` tokens before t, the paper's b: with `chunk=1` every gradient is taken at M_{t-1}.
A linear memory without momentum and forgetting, one token per gradient, is the delta rule of `models/ops/scan/recurrence.py`.

Letters: b batch, t time, h heads. A memory of depth L is a tuple of L weights [b, h, in, out] that act from the right,
`x @ W`. Gates are [b, t, h]; or per layer, [b, t, h, L]; and what is kept may differ from output channel to output channel,
[b, t, h, all layers' outputs one after the other] (the camera-ready's channel-wise alpha). Token by token and in any dtype, with
the gradient left to torch.func; the fast forms in this folder derive it by hand, have this signature, and are held to
this loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = tuple[Tensor, ...]
# Weights and surprise at the last anchor, and the tokens since: their k, v, momentum, rate and keep, each [b, n, h, ...].
State = tuple[Weights, Weights, tuple[Tensor, ...]]

# Of the residual memory's norm. With the usual 1e-5, forgetting makes f(x) small, its gradient huge, and the memory chaotic.
NORM_EPSILON = 0.1
ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu}


@dataclass(frozen=True)
class Rule:
    """What is fixed about a memory: its network and how it is written and read.

    `chunk` tokens share one gradient anchor. `residual` makes the network `x + LN(f(x))`, as in the camera-ready. `decayed`
    takes token t's gradient at `keep_t M_a`, which turns the gated delta rule into a special case. `exclusive` reads M_{t-1}.
    """

    chunk: int = 16
    activation: Literal["gelu", "silu"] = "gelu"
    residual: bool = False
    decayed: bool = False
    exclusive: bool = False

    def __post_init__(self):
        if self.chunk < 1:
            raise ValueError(f"A memory's chunk must be at least 1 token, not {self.chunk}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"Unknown memory activation '{self.activation}'; choose one of: {', '.join(ACTIVATIONS)}.")


def network(weights: Weights, x: Tensor, rule: Rule) -> Tensor:
    """The memory read without writing: `W_L s(... s(W_1 x))`, x [b, h, n, in] -> [b, h, n, out]."""
    y = x @ weights[0]
    for weight in weights[1:]:
        y = ACTIVATIONS[rule.activation](y) @ weight
    return x + F.layer_norm(y, y.shape[-1:], eps=NORM_EPSILON) if rule.residual else y


def gradient(weights: Weights, k: Tensor, v: Tensor, rule: Rule) -> Weights:
    """Gradient of `1/2 |M(k) - v|^2` for one token, k [b, h, in], v [b, h, out]; batch rows and heads do not mix."""

    def loss(weights: Weights) -> Tensor:
        return 0.5 * (network(weights, k[..., None, :], rule) - v[..., None, :]).square().sum()

    return torch.func.grad(loss)(weights)


def begin(initial: Weights, batch: int) -> tuple[Weights, Weights]:
    """Weights and surprise before the first token, from the learned weights [h, in, out] that all rows start with."""
    weights = tuple(weight.expand(batch, *weight.shape) for weight in initial)
    return weights, tuple(torch.zeros_like(weight) for weight in weights)


def gates_of_layers(gate: Tensor, outs: Sequence[int]) -> tuple[Tensor, ...]:
    """One gate per layer, [b, t, h, 1 or the layer's outputs], of [b, t, h], [b, t, h, L] or [b, t, h, sum of `outs`].

    Raises ValueError for any other last axis.
    """
    if gate.dim() == 3:
        return (gate[..., None],) * len(outs)
    if gate.shape[-1] not in (len(outs), sum(outs)):
        raise ValueError(
            f"A gate's last axis of {gate.shape[-1]} fits neither {len(outs)} layers nor {sum(outs)} output channels."
        )
    return gate.split(list(outs) if gate.shape[-1] == sum(outs) else 1, -1)


def resume(
    tokens: tuple[Tensor, ...], initial: Weights, state: State | None
) -> tuple[Weights, Weights, tuple[Tensor, ...], int]:
    """Weights and surprise at the last anchor, the tokens since it followed by the new ones, and how many are old."""
    if state is None:
        return *begin(initial, tokens[0].shape[0]), tokens, 0
    weights, surprise, opened = state
    past = opened[0].shape[1]
    if past:
        tokens = tuple(torch.cat([old, new], 1) for old, new in zip(opened, tokens, strict=True))
    return weights, surprise, tokens, past


def suspend(weights: Weights, surprise: Weights, tokens: tuple[Tensor, ...], chunk: int) -> State:
    """The state that carries the tokens of the open chunk behind the anchor at which `weights` stand."""
    end = tokens[0].shape[1] // chunk * chunk
    return weights, surprise, tuple(part[:, end:].clone() for part in tokens)


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    momentum: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: Rule,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The reference recurrence over a text: y [b, t, h, out] and the state after its last token.

    Shapes: q, k [b, t, h, in]; v [b, t, h, out]; momentum eta, rate theta and keep 1 - alpha in [0, 1], [b, t, h]
    or as `gates_of_layers` takes them; `initial` [h, in, out] per layer. The tokens of an open chunk are replayed from its
    anchor, without being read again.
    """
    weights, surprise, tokens, past = resume((k, v, momentum, rate, keep), initial, state)
    etas, thetas, gammas = (gates_of_layers(gate, [w.shape[-1] for w in initial]) for gate in tokens[2:])
    anchor = weights, surprise
    ys = []
    for t in range(tokens[0].shape[1]):
        eta, theta, gamma = ([gate[:, t, :, None] for gate in gates] for gates in (etas, thetas, gammas))
        if t % rule.chunk == 0:
            anchor = weights, surprise
        compared = tuple(c * weight for c, weight in zip(gamma, anchor[0], strict=True)) if rule.decayed else anchor[0]
        u = gradient(compared, tokens[0][:, t], tokens[1][:, t], rule)
        before = weights
        surprise = tuple(a * s - b * g for a, b, s, g in zip(eta, theta, surprise, u, strict=True))
        weights = tuple(c * weight + s for c, weight, s in zip(gamma, weights, surprise, strict=True))
        if t >= past:
            ys.append(network(before if rule.exclusive else weights, q[:, t - past, :, None], rule)[..., 0, :])
    if tokens[0].shape[1] % rule.chunk == 0:
        anchor = weights, surprise
    y = torch.stack(ys, dim=1) if ys else v.new_empty(v.shape)
    return y, suspend(*anchor, tokens, rule.chunk)
