"""The neural memory by our own Triton kernels: `models.ops.neural_memory.recurrence.recurrence`'s signature, for a CUDA device.

Left to PyTorch: cutting the text into chunks, and the unit-triangular system where several gradient anchors share a chunk. The
kernels' arithmetic is described in `../linear_blocks.py` and `../deep_chunks.py`; which is which in `docs/titans.md`.
Without CUDA they run in Triton's interpreter, if TRITON_INTERPRET=1 was set before Triton was first imported (slow: for tests).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.neural_memory.chunked_linear import ALONE, BLOCK, Cuts
from models.ops.neural_memory.recurrence import ACTIVATIONS, Rule, State, Weights, suspend
from models.ops.providers import NotCovered, require

WIDEST = 128  # of a matrix memory's keys and values
DEEP_WIDEST = (
    64  # of a two-layer memory's keys, hidden units and values: both layers' states fit one program's registers
)
LONGEST = 64  # tokens a chunk
KINDS = (torch.float32, torch.float16, torch.bfloat16)


def _require(q: Tensor, rule: Rule, sizes: list[int], widest: int) -> None:
    """Raise NotCovered for a device, a dtype, a chunk or a width that the kernels do not take."""
    require("triton", q)
    if q.dtype not in KINDS:
        raise NotCovered(f"The Triton kernels take float32, float16 or bfloat16, not {q.dtype}; use provider chunked.")
    if rule.chunk > LONGEST:
        raise NotCovered(
            f"The Triton kernels take chunks up to {LONGEST} tokens, not {rule.chunk}; use provider chunked."
        )
    if max(sizes) > widest:
        raise NotCovered(
            f"The Triton kernels take widths up to {widest} a head here, not {max(sizes)}; use provider chunked."
        )


def _cut(cuts: Cuts) -> tuple[Tensor, ...]:
    """Queries, keys, values, momentum, rate and keep, heads g (and batch rows) before chunks n: [g, n, size, ...]."""
    parts = (cuts.q, cuts.k, cuts.v, cuts.momentum, cuts.rate, cuts.keep)
    return tuple(cuts.blocks(part).transpose(0, 1) for part in parts)


def _joined(cuts: Cuts, y: Tensor) -> Tensor:
    """[g, n, size, out] -> [b, t, h, out] of the new tokens."""
    return cuts.new(y.unflatten(0, cuts.weights[0].shape[:2]).permute(0, 2, 3, 1, 4).flatten(1, 2))


def linear(
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
    """The reference recurrence for a memory of one matrix, at most 128 wide, and chunks up to 64 tokens; same shapes.

    Computed in float32, where states stay; products are TF32 in half precision. Raises NotCovered off CUDA (unless
    interpreted), for a deep or residual memory, one whose channels forget at paces of their own, or float64.
    """
    if len(initial) > 1 or rule.residual or max(gate.dim() for gate in (momentum, rate, keep)) > 3:
        raise NotCovered(
            "The linear Triton kernels hold a single matrix without residual and one gate a head; use provider chunked."
        )
    _require(q, rule, list(initial[0].shape[1:]), WIDEST)
    from models.ops.neural_memory.triton.autograd import ChunkLoop, Read, coefficients, comparisons

    with torch.autocast(q.device.type, enabled=False), torch.cuda.device_of(q):
        block = rule.chunk if rule.chunk >= ALONE else BLOCK // rule.chunk * rule.chunk
        cuts = Cuts(q, (k, v, momentum, rate, keep), initial, block, rule, state)
        kind = q.dtype if cuts.past == 0 else torch.float32
        queries, keys, values, eta, theta, gamma = _cut(cuts)
        table, ends = coefficients(eta, gamma, cuts.last)
        fresh, known = comparisons(keys, values, theta, theta * gamma if rule.decayed else theta, table, rule.chunk)
        before = cuts.weights[0].flatten(0, 1), cuts.surprise[0].flatten(0, 1)
        errors, m, s, *after = ChunkLoop.apply(fresh, known, keys, ends, *before, kind)
        y = Read.apply(queries, keys, errors, m, s, table, 0 if rule.exclusive else 1, kind)
        memory, surprise = (x.unflatten(0, cuts.weights[0].shape[:2]) for x in after)
    return _joined(cuts, y).to(q.dtype), suspend((memory,), (surprise,), cuts.tokens, rule.chunk)


def deep(
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
    """The recurrence of a memory of two layers whose three widths are 16, 32 or 64, in chunks up to 64 tokens; same shapes.

    Computed in float32, where states stay; products are TF32 in half precision. Raises NotCovered off CUDA (unless
    interpreted), for another network, gates per layer or channel, `decayed`, or float64.
    """
    if len(initial) != 2 or rule.residual or rule.decayed or max(gate.dim() for gate in (momentum, rate, keep)) > 3:
        raise NotCovered(
            "The deep Triton kernels hold two layers without residual, one gate a head, gradients at the memory itself "
            "(not decayed); use provider chunked."
        )
    sizes = [size for weight in initial for size in weight.shape[1:]]
    if len(set(sizes)) > 1 or sizes[0] not in (16, 32, 64):
        raise NotCovered(
            f"The deep Triton kernels need keys, hidden units and values of one width, 16, 32 or 64 a head, not {sizes}; "
            "use provider chunked."
        )
    _require(q, rule, sizes, DEEP_WIDEST)
    from models.ops.neural_memory.triton.autograd import DeepChunkLoop, Read, coefficients

    with torch.autocast(q.device.type, enabled=False), torch.cuda.device_of(q):
        cuts = Cuts(q, (k, v, momentum, rate, keep), initial, rule.chunk, rule, state)
        kind = q.dtype if cuts.past == 0 else torch.float32
        queries, keys, values, eta, theta, gamma = _cut(cuts)
        table, ends = coefficients(eta, gamma, cuts.last)
        shares = torch.cat([ends[..., :2], ends[..., 2:] * theta[:, :, None]], -1)
        parts = (cuts.weights[0], cuts.surprise[0], cuts.weights[1], cuts.surprise[1])
        first = torch.stack([part.flatten(0, 1) for part in parts])
        z, *errors, starts, last = DeepChunkLoop.apply(keys, values, shares, first, rule.activation == "gelu", kind)
        e1, e2 = (e * theta[..., None] for e in errors)
        activate, row = ACTIVATIONS[rule.activation], 0 if rule.exclusive else 1
        h = activate(Read.apply(queries, keys, e1, starts[0], starts[1], table, row, kind))
        y = Read.apply(h, activate(z), e2, starts[2], starts[3], table, row, torch.float32)
        last = last.unflatten(1, cuts.weights[0].shape[:2])
    end = suspend((last[0].clone(), last[2].clone()), (last[1].clone(), last[3].clone()), cuts.tokens, rule.chunk)
    return _joined(cuts, y).to(q.dtype), end
