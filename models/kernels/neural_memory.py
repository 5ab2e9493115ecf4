"""The linear neural memory in chunks, for every gradient anchor from one token to the whole chunk; exact.

With rows for tokens, M the memory and S the surprise before a chunk, and E = theta (v - k M_a) what each token writes,

    M_t = A[t,M] M + A[t,S] S + sum_{s<=t} A[t,s] k_s^T E_s          S_t = P[t,S] S + sum_{s<=t} P[t,s] k_s^T E_s
    P[t] = eta_t P[t-1] + 1_t,   A[t] = keep_t A[t-1] + P[t]          (two running scans over rows)
    O    = A[.,M] Q M + A[.,S] Q S + (Q K^T o A) E
    E    = theta (V - K M)                                            one anchor per chunk: the paper's b
    (I + X) E = theta (V - A[a,M] K M - A[a,S] K S),   X[t,s] = theta_t A[a(t),s] (k_t . k_s)        more than one

The table A begins with the row of the chunk's start, so that row t - 1 reads before token t writes and row a(t) is t's
anchor. All its terms are sums of products in [0, 1]: the scans neither cancel nor divide, unlike differences of cumulated
logarithms.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.neural_memory import Rule, State, Weights, resume, suspend

BLOCK = 32  # tokens computed together where anchors are younger than ALONE
ALONE = 16  # from this many tokens an anchor has a block of its own: no triangular system, for more steps in the walk


def chunked(
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
    """`models.neural_memory.recurrence` for a memory of one matrix, in chunks; same shapes.

    Half precision is computed in float32, and states stay there. Raises ValueError for a deep or residual memory, or one
    whose channels forget at paces of their own.
    """
    if len(initial) > 1 or rule.residual or keep.dim() > 3:
        raise ValueError(
            "The linear form holds a single matrix without residual that forgets per head; use the operation 'deep memory'."
        )
    with torch.autocast(q.device.type, enabled=False):
        block = rule.chunk if rule.chunk >= ALONE else BLOCK // rule.chunk * rule.chunk
        cuts = Cuts(q, (k, v, momentum, rate, keep), initial, block, rule, state)
        table, ends = coefficients(cuts.momentum, cuts.keep, cuts.last)
        fresh, known = comparisons(cuts, table)
        width = k.shape[-1]
        weights = cuts.k.mT.unsqueeze(-3) * ends[..., None, 2:]  # one row of weights for M, one for S
        before = torch.cat([cuts.weights[0], cuts.surprise[0]], -2)
        mix = ends[..., :2].flatten(-2)
        errors, starts, after = _Carry.apply(fresh, known, weights.flatten(-3, -2), mix, before)
        y = read(cuts.q, cuts.k, errors, starts, table[..., :-1, :] if rule.exclusive else table[..., 1:, :])
    end = suspend((after[..., :width, :].clone(),), (after[..., width:, :].clone(),), cuts.tokens, rule.chunk)
    return cuts.joined(y).to(q.dtype), end


class Cuts:
    """A text cut into blocks of whole chunks, [b, h, n, size, ...], in the dtype that the state is kept in.

    It begins with the tokens of the open chunk that the state carries, whose queries are zero. The end is filled with zeros;
    `last` is the row of the last block at which the new state stands: its last anchor.
    """

    def __init__(
        self, q: Tensor, tokens: tuple[Tensor, ...], initial: Weights, block: int, rule: Rule, state: State | None
    ):
        kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        tokens = tuple(part.to(kind) for part in tokens)
        self.weights, self.surprise, self.tokens, self.past = resume(tokens, tuple(w.to(kind) for w in initial), state)
        total = self.tokens[0].shape[1]
        self.size = min(total, block)
        self.last = total // rule.chunk * rule.chunk - (-(-total // self.size) - 1) * self.size
        k, v, momentum, rate, keep = self.tokens
        q = F.pad(q.to(kind), (0, 0, 0, 0, self.past, 0)) if self.past else q.to(kind)
        self.q, self.k, self.v = self._cut(q), self._cut(k), self._cut(v)
        self.momentum, self.rate, self.keep = self._cut(momentum), self._cut(rate), self._cut(keep)
        self.anchors = range(0, self.size, rule.chunk)  # rows of the table that are anchors
        self.chunk, self.decayed = rule.chunk, rule.decayed

    def _cut(self, x: Tensor) -> Tensor:
        short = -x.shape[1] % self.size
        if short:
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, short))
        return x.unflatten(1, (-1, self.size)).movedim(3, 1)

    def joined(self, y: Tensor) -> Tensor:
        """[b, h, n, size, v] -> [b, t, h, v] of the new tokens."""
        return y.flatten(2, 3).transpose(1, 2)[:, self.past : self.tokens[0].shape[1]]


def coefficients(momentum: Tensor, keep: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """The table A of gates in blocks [b, h, n, size], and the rows (A, P) of each block's end.

    A is [b, h, n, size + 1, size + 2]: row 0 is the block's start; the columns are the memory before the block, the surprise
    before it, and each token's write. The end rows, [b, h, n, 2, size + 2], are the last, or row `last` in the last block.
    """
    return _Scans.apply(momentum, keep, last)


class _Scans(torch.autograd.Function):
    """`P[t] = eta_t P[t-1] + 1_t`, `A[t] = keep_t A[t-1] + P[t]`; blocks lie innermost, so that each step is one long vector."""

    @staticmethod
    def forward(ctx: Any, momentum: Tensor, keep: Tensor, last: int) -> tuple[Tensor, Tensor]:
        lead, size = momentum.shape[:-1], momentum.shape[-1]
        eta, gamma = (x.reshape(-1, size).T.contiguous() for x in (momentum, keep))
        a, p = (eta.new_zeros(size + 1, size + 2, eta.shape[1]) for _ in range(2))
        a[0, 0] = 1
        p.diagonal(1, 0, 1).fill_(1)
        for t in range(1, size + 1):
            seen = slice(0, t + 2)  # later tokens have written nothing
            p[t, seen].addcmul_(p[t - 1, seen], eta[t - 1])
            torch.addcmul(p[t, seen], a[t - 1, seen], gamma[t - 1], out=a[t, seen])
        ctx.save_for_backward(eta, gamma, a, p)
        ctx.lead, ctx.last = lead, last
        table = a.permute(2, 0, 1).contiguous().unflatten(0, lead)
        ends = torch.stack([a[size], p[size]]).permute(2, 0, 1).unflatten(0, lead).contiguous()
        if last != size:
            final = torch.stack([a[last], p[last]]).permute(2, 0, 1).unflatten(0, lead)
            ends[:, :, -1] = final[:, :, -1]
        return table, ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_table: Tensor, d_ends: Tensor) -> tuple[Tensor, Tensor, None]:
        eta, gamma, a, p = ctx.saved_tensors
        size = eta.shape[0]
        da = d_table.reshape(-1, size + 1, size + 2).permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
        dp = torch.zeros_like(da)
        if ctx.last != size:
            final = d_ends.clone()
            final[:, :, :-1] = 0
            d_ends = d_ends - final
            final = final.reshape(-1, 2, size + 2).permute(1, 2, 0)
            da[ctx.last] += final[0]
            dp[ctx.last] += final[1]
        d_ends = d_ends.reshape(-1, 2, size + 2).permute(1, 2, 0)
        da[size] += d_ends[0]
        dp[size] += d_ends[1]
        for t in range(size, 0, -1):
            seen = slice(0, t + 2)
            dp[t, seen] += da[t, seen]
            dp[t - 1, seen].addcmul_(dp[t, seen], eta[t - 1])
            da[t - 1, seen].addcmul_(da[t, seen], gamma[t - 1])
        d_eta = torch.stack([(dp[t] * p[t - 1]).sum(0) for t in range(1, size + 1)])
        d_gamma = torch.stack([(da[t] * a[t - 1]).sum(0) for t in range(1, size + 1)])
        return d_eta.T.reshape(*ctx.lead, size), d_gamma.T.reshape(*ctx.lead, size), None


def read(q: Tensor, k: Tensor, errors: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
    """What each row of q gets from its own token's matrix, without forming it: `A[.,M] Q M + A[.,S] Q S + (Q K^T o A) E`.

    Shapes: q, k [b, h, n, size, in]; errors [b, h, n, size, out]; starts [b, h, n, 2 in, out], M above S; rows of A.
    """
    before = (q.unsqueeze(-2) * rows[..., :2, None]).flatten(-2)
    return before @ starts + (q @ k.mT * rows[..., 2:]) @ errors


def comparisons(cuts: Cuts, table: Tensor) -> tuple[Tensor, Tensor]:
    """U and Y of `E = U - Y [M; S]`; with one anchor per block Y has only M's columns."""
    k, fresh = cuts.k, cuts.v * cuts.rate[..., None]
    known = k * cuts.rate[..., None]
    if cuts.decayed:
        known = known * cuts.keep[..., None]
    if len(cuts.anchors) == 1:
        return fresh, known
    rows = table[..., : -1 : cuts.chunk, :]
    if cuts.chunk > 1:
        rows = rows.repeat_interleave(cuts.chunk, -2)[..., : cuts.size, :]
    x = known @ k.mT * rows[..., 2:]
    right = torch.cat([fresh, (known.unsqueeze(-2) * rows[..., :2, None]).flatten(-2)], -1)
    solved = torch.linalg.solve_triangular(x, right, upper=False, unitriangular=True)
    return solved.split([fresh.shape[-1], 2 * k.shape[-1]], -1)


class _Carry(torch.autograd.Function):
    """The walk over blocks, `E = U - Y Z`, `Z <- mix(Z) + R E` with Z = [M; S], written out with its backward walk.

    Shapes: U [b, h, n, size, out]; Y [b, h, n, size, in or 2 in]; R [b, h, n, 2 in, size]; mix [b, h, n, 4] as
    M <- mix_0 M + mix_1 S, S <- mix_3 S; Z [b, h, 2 in, out]. Gives E, the Z before each block, and the last Z.
    """

    @staticmethod
    def forward(ctx: Any, fresh: Tensor, known: Tensor, writes: Tensor, mix: Tensor, state: Tensor):
        lead, blocks, width = fresh.shape[:2], fresh.shape[2], writes.shape[-2] // 2
        u, y, r, m = (x.flatten(0, 1).transpose(0, 1).contiguous() for x in (fresh, known, writes, mix))
        m = m[..., None, None]
        z = state.flatten(0, 1)
        errors, starts = torch.empty_like(u), u.new_empty(blocks, *z.shape)
        for n in range(blocks):
            starts[n] = z
            torch.baddbmm(u[n], y[n], z[:, : y.shape[-1]], alpha=-1, out=errors[n])
            kept = torch.cat([z[:, :width] * m[n, :, 0] + z[:, width:] * m[n, :, 1], z[:, width:] * m[n, :, 3]], 1)
            z = torch.baddbmm(kept, r[n], errors[n])
        ctx.save_for_backward(y, r, m, errors, starts)
        ctx.lead = lead
        return (*(_blocks_third(x, lead) for x in (errors, starts)), z.unflatten(0, lead))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_errors: Tensor, d_starts: Tensor, dz: Tensor):
        y, r, m, errors, starts = ctx.saved_tensors
        width, known = r.shape[-2] // 2, y.shape[-1]
        de = d_errors.flatten(0, 1).transpose(0, 1).clone(memory_format=torch.contiguous_format)
        d_starts = d_starts.flatten(0, 1).transpose(0, 1)
        dz, after = dz.flatten(0, 1), torch.empty_like(starts)
        for n in range(len(y) - 1, -1, -1):
            after[n] = dz
            de[n].baddbmm_(r[n].mT, dz)
            dm = dz[:, :width] * m[n, :, 0] + d_starts[n, :, :width]
            ds = dz[:, :width] * m[n, :, 1] + dz[:, width:] * m[n, :, 3] + d_starts[n, :, width:]
            if known == width:
                dz = torch.cat([dm.baddbmm_(y[n].mT, de[n], alpha=-1), ds], 1)
            else:
                dz = torch.cat([dm, ds], 1).baddbmm_(y[n].mT, de[n], alpha=-1)
        d_known = -(de @ starts[:, :, :known].mT)
        d_writes = after @ errors.mT
        dm, ds, zm, zs = after[:, :, :width], after[:, :, width:], starts[:, :, :width], starts[:, :, width:]
        pairs = ((dm, zm), (dm, zs), (ds, zm), (ds, zs))
        d_mix = torch.stack([(left * right).sum((-2, -1)) for left, right in pairs], -1)
        d_mix[..., 2] = 0  # the memory never flows into the surprise
        grads = (_blocks_third(x, ctx.lead) for x in (de, d_known, d_writes, d_mix))
        return (*grads, dz.unflatten(0, ctx.lead))


def _blocks_third(x: Tensor, lead: torch.Size) -> Tensor:
    """[n, b * h, ...] -> [b, h, n, ...]."""
    return x.unflatten(1, lead).movedim(0, 2)
