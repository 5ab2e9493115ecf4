"""The law of the Omega rule: a memory that learns, at every token, the last `window` tokens anew (OmegaNet, ATLAS).

    compare   u_t = - sum_{i = t-c+1 .. t} gamma_i gradient of 1/2 |M_a(k_i) - v_i|^2          c: window, at the anchored M_a
    surprise  S_t = eta_t S_{t-1} + u_t                                                        without momentum u_t itself
    forget    M_t = keep_t M_{t-1} + rate_t O(S_t)
    read      y_t = M_t(q_t)

(Behrouz et al. 2025, arXiv 2505.23735, eqs. 9, 10, 32-34; the squared loss's factor 2 is part of the rate.) The anchor a is the
last multiple of `chunk` tokens before t; tokens before it that a window reaches are compared with M_a as well. O is

    None       S itself: OmegaNet
    "token"    Newton-Schulz of every S_t: ATLAS
    "chunk"    Newton-Schulz of the S_t after a chunk's last token, C, alone, in the place of all that chunk's:
               M_C = (prod keep) M_0 + (sum_s rate_s prod_{r > s} keep_r) O(S_C); the tokens before it read what M_0 has left

With `chunk=1` the last two are one. A window of one token and O = None without momentum is Titans' step without momentum.

Letters: b batch, t time, h heads. A memory of depth L is a tuple of L weights [b, h, in, out] that act from the right, a plain
network. Token by token, in any dtype; `window_chunked.py` has this signature and is held to this loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.associative_memory.newton_schulz import newton_schulz
from models.ops.neural_memory import recurrence as titans

Weights = tuple[Tensor, ...]
# M and S (none without momentum) at the last anchor; the window's tokens before it, and those since: their k, v, gamma, rate,
# keep and, if there is one, momentum.
State = tuple[Weights, Weights, tuple[Tensor, ...]]


@dataclass(frozen=True)
class WindowRule:
    """What is fixed about a memory: tokens per gradient anchor, activation, the window c, and which S are orthogonalised."""

    chunk: int = 16
    activation: Literal["gelu", "silu"] = "gelu"
    window: int = 4
    orthogonal: Literal["token", "chunk"] | None = None

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.window < 1:
            raise ValueError(
                f"A memory's chunk and window must be at least 1 token, not {self.chunk} and {self.window}."
            )
        if self.activation not in titans.ACTIVATIONS:
            raise ValueError(
                f"Unknown memory activation '{self.activation}'; choose one of: {', '.join(titans.ACTIVATIONS)}."
            )
        if self.orthogonal not in (None, "token", "chunk"):
            raise ValueError(f"Unknown orthogonalisation '{self.orthogonal}'; choose token or chunk, or None.")


def resume(
    tokens: tuple[Tensor, ...], initial: Weights, momentum: bool, rule: WindowRule, state: State | None
) -> tuple[Weights, Weights, tuple[Tensor, ...], int]:
    """M and S at the last anchor, the window before it with the tokens since and the new ones, and how many of these are old.

    Before the first token the window holds tokens of weight 0.
    """
    if state is None:
        weights = tuple(w.expand(tokens[0].shape[0], *w.shape) for w in initial)
        before = (0, 0, rule.window - 1, 0)
        tokens = tuple(F.pad(x, (0, 0) * (x.dim() - 3) + before) for x in tokens)
        return weights, tuple(torch.zeros_like(w) for w in weights) if momentum else (), tokens, 0
    weights, surprise, opened = state
    tokens = tuple(torch.cat([old, new], 1) for old, new in zip(opened, tokens, strict=True))
    return weights, surprise, tokens, opened[0].shape[1] - rule.window + 1


def suspend(weights: Weights, surprise: Weights, tokens: tuple[Tensor, ...], rule: WindowRule) -> State:
    """The state at the anchor at which `weights` and `surprise` stand: with the window before it and the open chunk's tokens."""
    end = (tokens[0].shape[1] - rule.window + 1) // rule.chunk * rule.chunk
    return weights, surprise, tuple(part[:, end:].clone() for part in tokens)


def tokens_of(k, v, weight, rate, keep, momentum, rule: WindowRule) -> tuple[Tensor, ...]:
    """What is remembered of the tokens. Raises ValueError for an orthogonal step without momentum."""
    if momentum is None and rule.orthogonal:
        raise ValueError("Only a momentum is orthogonalised: give the memory one, or orthogonal=None.")
    return (k, v, weight, rate, keep) if momentum is None else (k, v, weight, rate, keep, momentum)


def omega_loss(weights: Weights, k: Tensor, v: Tensor, weight: Tensor, network: titans.Rule) -> Tensor:
    """Half the weighted squared errors of a window's tokens, k [b, c, h, in], v [b, c, h, out], weight [b, c, h], summed."""
    errors = titans.network(weights, k.transpose(1, 2), network) - v.transpose(1, 2)
    return 0.5 * (weight.transpose(1, 2) * errors.square().sum(-1)).sum()


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weight: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: WindowRule,
    momentum: Tensor | None = None,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The law over a text: y [b, t, h, out] and the state after its last token.

    Shapes: q, k [b, t, h, in]; v [b, t, h, out]; weight gamma, rate, keep, momentum [b, t, h]; `initial` [h, in, out] a layer.
    """
    tokens = tokens_of(k, v, weight, rate, keep, momentum, rule)
    weights, surprise, tokens, past = resume(tokens, initial, momentum is not None, rule, state)
    network = titans.Rule(rule.chunk, rule.activation)
    total, ys = tokens[0].shape[1] - rule.window + 1, []
    at_anchor = weights, surprise
    for t in range(total):
        if t % rule.chunk == 0:
            at_anchor, gathered = (weights, surprise), 0.0
        r, kept, *eta = (part[:, t + rule.window - 1, :, None, None] for part in tokens[3:])
        seen = [part[:, t : t + rule.window] for part in tokens[:3]]
        u = tuple(-g for g in torch.func.grad(omega_loss)(at_anchor[0], *seen, network))
        if eta:
            u = surprise = tuple(eta[0] * a + b for a, b in zip(surprise, u, strict=True))
        gathered, amount = kept * gathered + r, r
        if rule.orthogonal == "chunk":
            amount = gathered if (t + 1) % rule.chunk == 0 else torch.zeros_like(r)
        u = tuple(newton_schulz(s) for s in u) if rule.orthogonal else u
        weights = tuple(kept * w + amount * s for w, s in zip(weights, u, strict=True))
        if t >= past:
            ys.append(titans.network(weights, q[:, t - past, :, None], network)[..., 0, :])
    if total % rule.chunk == 0:
        at_anchor = weights, surprise
    return torch.stack(ys, 1) if ys else v.new_empty(v.shape), suspend(*at_anchor, tokens, rule)
