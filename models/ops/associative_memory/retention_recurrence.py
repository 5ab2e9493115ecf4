"""The law of MIRAS' memories, token by token: gradient steps on another loss than Titans', retained in another way.

    compare   u_t = gradient of loss(M_a(k_t), v_t) at the anchored memory M_a
    forget    A_t = keep_t A_{t-1} - rate_t u_t
    read      y_t = M_t(q_t)

(Behrouz et al. 2025, arXiv 2504.13173, eqs. 24-32, section 5.4.) The anchor a is the last multiple of `chunk` tokens before t.
The losses, and M as a function of A, stand in `retention_rule.py`. Within a chunk the memory is a linear function of its writes,
as in section 5.4; with `chunk=1` every step is the equation itself:

    lq   M_t = A_t / n, where n is taken anew after the last token of every chunk (eq. 24)
    kl   the first token of a chunk takes M_1 = mass softmax(keep_1 log max(M_0, floor) - rate_1 u_1), at which the gradients of
         the chunk's other tokens are taken: M_t = keep_t M_{t-1} - rate_t u_t (eqs. 27, 30-32)

Letters: b batch, t time, h heads. A memory of depth L is a tuple of L weights [b, h, in, out] that act from the right. The fast
form, `retention_chunked.py`, has this signature and is held to this loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.associative_memory.retention_rule import RetentionRule, bent, divisor, network, on_simplex

Weights = tuple[Tensor, ...]
# A at the last anchor, and the tokens since: their k, v, rate, keep and threshold, each [b, n, h, ...].
State = tuple[Weights, tuple[Tensor, ...]]


def gradient(weights: Weights, k: Tensor, v: Tensor, threshold: Tensor, rule: RetentionRule) -> Weights:
    """Gradient of the loss for one token, k [b, h, in], v [b, h, out], threshold [b, h]; rows and heads do not mix."""
    answer, back = torch.func.vjp(lambda *w: network(w, k[..., None, :], rule)[..., 0, :], *weights)
    return back(-bent(v - answer, threshold[..., None], rule))


def resume(
    tokens: tuple[Tensor, ...], initial: Weights, state: State | None
) -> tuple[Weights, tuple[Tensor, ...], int]:
    """A at the last anchor, the tokens since it followed by the new ones, and how many are old."""
    if state is None:
        return tuple(w.expand(tokens[0].shape[0], *w.shape) for w in initial), tokens, 0
    carried, opened = state
    tokens = tuple(torch.cat([old, new], 1) for old, new in zip(opened, tokens, strict=True))
    return carried, tokens, opened[0].shape[1]


def suspend(carried: Weights, tokens: tuple[Tensor, ...], chunk: int) -> State:
    """The state that carries the tokens of the open chunk behind the anchor at which A stands."""
    end = tokens[0].shape[1] // chunk * chunk
    return carried, tuple(part[:, end:].clone() for part in tokens)


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rate: Tensor,
    keep: Tensor,
    threshold: Tensor,
    initial: Weights,
    rule: RetentionRule,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The law over a text: y [b, t, h, out] and the state after its last token.

    Shapes: q, k [b, t, h, in]; v [b, t, h, out]; rate, keep in [0, 1] and threshold delta > 0 (that of huber; others leave it
    alone), [b, t, h]; `initial` A [h, in, out] per layer: with kl the weights themselves, not their logarithms.
    """
    carried, tokens, past = resume((k, v, rate, keep, threshold), initial, state)
    at_anchor, norms = carried, tuple(divisor(part, rule) for part in carried)
    ys = []
    for t in range(tokens[0].shape[1]):
        key, value, *gates, delta = (part[:, t] for part in tokens)
        r, kept = (gate[..., None, None] for gate in gates)
        if t % rule.chunk == 0:
            at_anchor, anchor = carried, tuple(a / n for a, n in zip(carried, norms, strict=True))
        u = gradient(anchor, key, value, delta, rule)
        if rule.retention == "kl" and t % rule.chunk == 0:
            logs = tuple(a.clamp_min(rule.weight_floor).log() for a in carried)
            carried = anchor = tuple(on_simplex(kept * a - r * g, rule) for a, g in zip(logs, u, strict=True))
        else:
            carried = tuple(kept * a - r * g for a, g in zip(carried, u, strict=True))
        if (t + 1) % rule.chunk == 0:
            norms = tuple(divisor(part, rule) for part in carried)
        if t >= past:
            memory = tuple(a / n for a, n in zip(carried, norms, strict=True))
            ys.append(network(memory, q[:, t - past, :, None], rule)[..., 0, :])
    if tokens[0].shape[1] % rule.chunk == 0:
        at_anchor = carried
    return torch.stack(ys, 1) if ys else v.new_empty(v.shape), suspend(at_anchor, tokens, rule.chunk)
