"""The law of attention that is exact inside a block and a kernel of sketches for all blocks before:

    w_ts = (q_t . k_s)^4          if s <= t stands in t's block
           (g(q_t) . g(k_s))^2    if it stands in an earlier one
    y_t  = sum_s w_ts v_s / (1 + sum_s w_ts)

(Kacham, Mirrokni and Zhong 2024, arXiv 2310.01655.) Blocks are counted from the text's first token. Token by token here.
The state: the mean of what the complete blocks wrote [b, h, features, v + 1], keys, sketches and values of the open block
[b, < block, h, .], and the number of tokens read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.kernel_attention.features import count, features
from models.ops.kernel_attention.sums import mean, quotient, total, wide_kind, widened

PLUS = 1.0  # the 1 in the denominator
State = tuple[Tensor, Tensor, Tensor, Tensor, int]


def recurrence(
    q: Tensor, k: Tensor, sketch_q: Tensor, sketch_k: Tensor, v: Tensor, *, block: int, state: State | None = None
) -> tuple[Tensor, State]:
    """The reference recurrence: y [b, t, h, v] in v's dtype, and the state after the last token.

    Shapes: q, k [b, t, h, d], compared inside a block; sketch_q, sketch_k [b, t, h, r], compared across; v [b, t, h, v].
    """
    dtype, kind = v.dtype, wide_kind(q, k, sketch_q, sketch_k, v)
    with torch.autocast(q.device.type, enabled=False):
        own = [x.to(kind) for x in (q, sketch_q, k, sketch_k, widened(v, True))]
        sums, keys, sketches, values, tokens = begun(*own[1:], state)
        ys = []
        tokens_given = zip(*(x.split(1, 1) for x in own), strict=True) if q.shape[1] else ()
        for query, sketch, *written in tokens_given:
            keys, sketches, values = (
                torch.cat(pair, 1) for pair in zip((keys, sketches, values), written, strict=True)
            )
            tokens += 1
            inside = torch.einsum("bshv,bsh->bhv", values, (query * keys).sum(-1) ** 4)
            ys.append(inside + torch.einsum("bhfv,bhf->bhv", sums, features(sketch[:, 0], "square")))
            if tokens % block == 0:
                sums = sums + torch.einsum("bshf,bshv->bhfv", features(sketches, "square"), values)
                keys, sketches, values = (x[:, :0] for x in (keys, sketches, values))
        y = quotient(torch.stack(ys, 1) if ys else own[-1], PLUS)
    return y.to(dtype), ended(sums, keys, sketches, values, tokens)


def begun(sketch_q: Tensor, k: Tensor, sketch_k: Tensor, v: Tensor, state: State | None) -> tuple:
    """Sums, open block and tokens read that a piece begins with; values have their column of ones."""
    if state is not None:
        sums, keys, sketches, values, tokens = state
        keys, sketches, values = (x.to(v.dtype) for x in (keys, sketches, values))
        return total(sums.to(v.dtype), tokens - keys.shape[1]), keys, sketches, widened(values, True), tokens
    sums = v.new_zeros(v.shape[0], v.shape[2], count(sketch_q.shape[-1], "square"), v.shape[-1])
    return sums, k[:, :0], sketch_k[:, :0], v[:, :0], 0


def ended(sums: Tensor, keys: Tensor, sketches: Tensor, values: Tensor, tokens: int) -> State:
    """The state that a piece ends with; no view keeps the piece itself alive."""
    opened = (x.clone() for x in (keys, sketches, values[..., :-1]))
    return mean(sums, tokens - keys.shape[1]), *opened, tokens
