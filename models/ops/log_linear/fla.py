"""Log-linear attention by flash-linear-attention's kernels (package fla-core), for the row of the law that compares nothing.

`chunk_log_linear_attn` reads chunks of 64 tokens from a text's first on, with a state for every digit of their count, and a
weight for every level; a level that it has no weight for reads nothing. The law's last bucket keeps all that is older, so the
last weight is repeated for the levels above it. The rate scales the values.

It can begin from a state, between two chunks and without a gradient. What it hands out is no bucket of the law's where a chunk is
unfinished, and has no gradient: the last buckets are products over the tokens of each, here, in PyTorch.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.fla_inputs import working_dtype
from models.ops.log_linear.recurrence import State
from models.ops.providers import NotCovered, require

CHUNK = 64  # tokens of the kernel's chunk, and numbers in its block of a key
WIDEST = 128  # keys and values of a head
LONGEST = 1 << 17  # tokens, with those before


def log_linear(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    *,
    log_forget: Tensor,
    rate: Tensor | None = None,
    compare: bool = False,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.log_linear.recurrence.recurrence` by fla's kernels; same shapes. y in v's dtype, the buckets in float32.

    Raises NotCovered for a comparison, for a state with gradients or one inside a chunk of 64 tokens (so for decoding token by
    token), for keys or values wider than 128, for more than 131,072 tokens, for float64, and for tensors that Triton cannot
    reach.
    """
    for given in (q, v):
        require("fla", given)
    before = 0 if state is None else state[1]
    _check(q, v, compare, before)
    dtype, kind, (batch, time, heads, values), levels = v.dtype, working_dtype(q, k, v), v.shape, weights.shape[-1]
    with torch.autocast(q.device.type, enabled=False):
        log_forget = log_forget.float()
        written = v.float() if rate is None else rate.float()[..., None] * v.float()
        if state is None:
            state = written.new_zeros(batch, heads, levels - 1, q.shape[-1], values), 0
        state = state[0].float(), before
        after = _last_buckets(k.float(), written, log_forget, state), before + time
        if not time:
            return v, after
        keys, width = (max(least, 1 << (n - 1).bit_length()) for least, n in ((CHUNK, q.shape[-1]), (16, values)))
        q, k = (F.pad(x.to(kind), (0, keys - x.shape[-1])) for x in (q, k))
        written = F.pad(written.to(kind), (0, width - values))
        above = max(0, (before + time - 1).bit_length() + 1 - levels)
        weights = torch.cat([weights, weights[..., -1:].expand(*weights.shape[:-1], above)], -1).to(kind)
        y = _read(q, k, written, log_forget, weights, state)
    return y[..., :values].to(dtype), after


def _check(q: Tensor, v: Tensor, compare: bool, before: int) -> None:
    if compare:
        raise NotCovered("Provider 'fla' has log-linear attention without a comparison only; use chunked.")
    if before and (before % CHUNK or torch.is_grad_enabled()):
        raise NotCovered(
            "Provider 'fla' goes on from a state of log-linear attention only without a gradient and after a multiple of "
            f"{CHUNK} tokens (here {before}); use chunked."
        )
    if max(q.shape[-1], v.shape[-1]) > WIDEST or before + v.shape[1] > LONGEST:
        raise NotCovered(
            f"Provider 'fla' has log-linear attention for keys and values of at most {WIDEST} and {LONGEST:,} tokens; "
            "use chunked."
        )


def _read(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, weights: Tensor, state: State) -> Tensor:
    """y by the kernel, of what has been made to fit it."""
    from fla.ops.log_linear_attn import chunk_log_linear_attn

    given = [x.contiguous() for x in (q, k, v, log_forget, weights)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Triton>3.2.0 detected", category=UserWarning)  # of its speed
        return chunk_log_linear_attn(*given, initial_state=_begun(*given, state) if state[1] else None)[0]


def _begun(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, weights: Tensor, state: State) -> object:
    """What the kernel goes on from: a state for every digit of the chunks so far, the last bucket at the highest."""
    from fla.ops.log_linear_attn.chunk import LogLinearAttentionState

    buckets, count = state
    chunks, top = count // CHUNK, buckets.shape[2] - 1
    first = CHUNK.bit_length() - 1  # the bucket that holds one chunk
    held = v.new_zeros(len(v), chunks.bit_length(), v.shape[2], k.shape[-1], v.shape[-1], dtype=torch.float32)
    missing = 0, held.shape[-1] - buckets.shape[-1], 0, held.shape[-2] - buckets.shape[-2]
    for digit in range(chunks.bit_length()):
        if first + digit < top and chunks >> digit & 1:
            held[:, digit] = F.pad(buckets[:, :, first + digit], missing)
    if count >> top:
        held[:, -1] = F.pad(buckets[:, :, top], missing)
    offsets = torch.full((len(v),), count, dtype=torch.int32, device=v.device)
    open_chunk = [x.new_zeros(len(x), CHUNK, *x.shape[2:]) for x in (q, k, v, log_forget, weights)]
    return LogLinearAttentionState(held, offsets, *open_chunk)


def _last_buckets(k: Tensor, written: Tensor, log_forget: Tensor, state: State) -> Tensor:
    """The buckets after the last token: what came before, faded and merged, and the tokens of each bucket in one product."""
    buckets, start = state
    top, end = buckets.shape[2] - 1, start + written.shape[1]
    if end == start:
        return buckets
    since = log_forget.flip(1).cumsum(1).flip(1)  # from a token on, itself included
    fade = torch.cat([since[:, 1:], torch.zeros_like(since[:, :1])], 1).exp()
    written, kept = fade[..., None] * written, since[:, 0, :, None, None].exp()
    k, product = (k[:, :, 0], "btk,bthv->bhkv") if k.shape[2] == 1 else (k, "bthk,bthv->bhkv")
    after = []
    for j in range(top + 1):
        first, last = _tokens(end, j, top)
        new = slice(max(first - start, 0), max(last - start, 0))
        old = [i for i in range(top + 1) if first <= _tokens(start, i, top)[0] < min(last, _tokens(start, i, top)[1])]
        sums = torch.einsum(product, k[:, new], written[:, new])
        after.append(sums + kept * buckets[:, :, old].sum(2))
    return torch.stack(after, 2)


def _tokens(count: int, j: int, top: int) -> tuple[int, int]:
    """The places of the tokens in bucket j after `count` of them, from and to; the same number twice where it is empty."""
    if j == top:
        return 0, count >> top << top
    first = count >> (j + 1) << (j + 1)
    return first, first + (count & (1 << j))
