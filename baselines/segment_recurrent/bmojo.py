"""B'MOJO: one softmax over the last tokens, what a state space model made of those before, and tokens that it did not foresee.

Zancato et al. 2024, arXiv 2407.06324; fading memory as the authors' code (awslabs/hybrid-model-factory, B'MOJO-F) has it. With
z = SSM(x), Mamba-2 here, and blocks of w tokens counted from the text's first, the query W_q x_t of a token in block n sees

    in context   W_k x_s, W_v x_s    s = t - w + 1 .. t
    fading       W_k z_s, W_v z_s    s = t - 2w + 1 .. t - w
    eidetic      W_k x_s, W_v x_s    the E tokens s < (n - 1) w of the largest errors, the earlier of two that are equal

    error        |z_s - mean(z_{s-4} .. z_{s-1})| / (|z_s| + 1e-6),  in steps of 2^-20;  the mean of what there is of the four

The same W for x and z, rotary by the place in the text, scores divided by sqrt(d). `eidetic=0` is B'MOJO-F.

Reading: the authors' code has no eidetic memory; the paper stores what its state predicts badly. The error, its four tokens,
the table's renewal block by block and its size are ours. Gradients reach the stored tokens, not the choice; z and the errors are
computed in float32 under autocast.

Deviations: the SSM's inner width is the model's (Mamba-2's own is twice that), so that half of a layer's numbers stay with the
SwiGLU, and it has 16 states; the window is 32 (theirs 2048), for models trained on hundreds of tokens; no norm of q and k.

Speed: a training step on one thread of a CPU at 512 tokens takes 1.1 times the reference Transformer's at width 64 (8 rows), 1.2
times at width 128 with 4 rows and 1.4 times with one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import linear_flops, rotary, split_heads
from models.ops.flops import Flops, attention_flops, filled
from models.ops.providers import note
from models.registry import register
from models.shell.hybrid import mixer_of
from models.shell.segments import in_blocks

FORESEEN_BY = 4  # tokens whose mean foretells the next
STEPS = 2.0**20  # of an error of 1
PLACES = 2**32  # a rank is the error's step and, of equal ones, the earlier place

# The SSM's state; its last outputs [b, 4, D]; fading keys, values [b, < 2w, h, d]; keys, values, ranks [b, n, ..] from the block
# before the open one; keys, values [b, E, h, d], ranks [b, E] of the table, -1 where it is empty; tokens read.
State = tuple[tuple, Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor], int]


def token_by_token(layer: BMojo, x: Tensor, state: None = None) -> tuple[Tensor, None]:
    """The layer from its equations, one token of one row after the other, of a whole text x [b, t, D]."""
    z, window = layer.ssm(x)[0], layer.window
    q, k, kz = (rotary(split_heads(part, layer.heads), 0) for part in (layer.query(x), layer.key(x), layer.key(z)))
    v, vz = (split_heads(layer.value(part), layer.heads) for part in (x, z))
    ys = torch.zeros_like(q)
    for row in range(len(x)):
        surprise = []
        for t in range(x.shape[1]):
            past = z[row, max(0, t - FORESEEN_BY) : t]
            gap = z[row, t] - (past.mean(0) if t else 0)
            surprise.append(round((gap.norm() / (z[row, t].norm() + 1e-6)).item() * STEPS))
            known = range(max(0, (t // window - 1) * window))
            stored = sorted(known, key=lambda s: (-surprise[s], s))[: layer.eidetic]
            seen = stored + list(range(max(0, t - window + 1), t + 1))
            faded = slice(max(0, t - 2 * window + 1), max(0, t - window + 1))
            keys, values = torch.cat([k[row, seen], kz[row, faded]]), torch.cat([v[row, seen], vz[row, faded]])
            weight = (torch.einsum("hd,jhd->hj", q[row, t], keys) / q.shape[-1] ** 0.5).softmax(-1)
            ys[row, t] = torch.einsum("hj,jhd->hd", weight, values)
    return layer.out(ys.flatten(2)), None


@register(
    "bmojo",
    paper="Zancato et al. 2024, arXiv 2407.06324",
    equation="y = softmax(q [K_stored | W_k z | K]^T) [V_stored | W_v z | V],  z = SSM(x);  stored: the largest |z - mean z|",
)
class BMojo(nn.Module):
    """Attention over a window, an SSM's outputs in the window before it, and a table of `eidetic` tokens from before both."""

    fixed_state = True
    state_setting = "eidetic"
    law = Law(
        forget="fading: the SSM's a; eidetic: all but the E largest errors",
        compare="z - mean of the last four z",
        write="k, v of x and of z, appended",
        read="softmax over [stored | fading | in context]",
    )
    reading = "Eidetic memory stores what lies far from the mean of the SSM's last four outputs; the paper's test has no code."
    reference = staticmethod(token_by_token)

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        window: int = 32,
        eidetic: int = 16,
        states: int = 16,
        provider: str = "auto",
    ):
        """`inner` is the SSM's width over all heads, the model's by default; `states` are its own; `provider` computes it."""
        super().__init__()
        inner = width if inner is None else inner
        if width % (2 * heads) or inner % heads or min(window, states) < 1 or eidetic < 0:
            raise ValueError(
                f"B'MOJO needs width ({width}) as a multiple of {2 * heads}, inner ({inner}) of heads ({heads}), "
                "window and states >= 1 and eidetic >= 0."
            )
        self.heads, self.window, self.eidetic, self.period = heads, window, eidetic, 2 * window
        (ssm,) = self.made_of({})
        self.ssm = mixer_of(ssm).cls(width, heads, inner=inner, states=states, provider=provider)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.normal_(layer.weight, std=(0.5 if layer is self.out else 1.0) * width**-0.5)

    @classmethod
    def made_of(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The registered token mixer that is the SSM."""
        return ("mamba2",)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        note("sdpa")
        ssm, before, faded, own, table, read = self._begun(x) if state is None else state
        with torch.autocast(x.device.type, enabled=False):  # rounding would change the choice
            z, ssm = self.ssm(x.to(self.query.weight.dtype), ssm)
            ranks, before = _ranks(z.detach(), before.to(z.dtype), read)
        q, k, kz = (rotary(split_heads(part, self.heads), read) for part in (self.query(x), self.key(x), self.key(z)))
        v, vz = (split_heads(self.value(part), self.heads) for part in (x, z))
        faded, own = _joined(faded, (kz, vz)), _joined(own, (k, v, ranks))
        total, window = read + x.shape[1], self.window
        begun, opened, last = read // window, total // window, -(-total // window)
        places, table_ranks = self._tables(own[2], table[2], begun, opened)
        rows = _joined(table[:2], own[:2])  # what the tables choose from
        y = self._attend(q, own[:2], faded, [_chosen(part, places[:, : last - begun]) for part in rows], read)
        table = *(_chosen(part, places[:, -1:])[:, 0] for part in rows), table_ranks
        kept = window * (max(0, opened - 1) - max(0, begun - 1))
        faded = tuple(part[:, max(0, part.shape[1] - 2 * window + 1) :].clone() for part in faded)
        return self.out(y.flatten(2)), (ssm, before, faded, tuple(part[:, kept:].clone() for part in own), table, total)

    def flops(self, time: int) -> Flops:
        """Of attention to the table and two pairs of blocks, and of z's keys and values; the SSM counts itself."""
        rows, width = filled(time, self.window) if time > self.window else time, self.out.in_features
        again = linear_flops(self.key, time).plus(linear_flops(self.value, time))
        return attention_flops(rows, self.eidetic + 4 * self.window, width).plus(again)

    def _begun(self, x: Tensor) -> State:
        """The state before a text."""
        empty, none = (x.new_zeros(len(x), count, self.heads, x.shape[2] // self.heads) for count in (self.eidetic, 0))
        ranks = torch.full((len(x), self.eidetic), -1, device=x.device)
        return None, x[:, :0], (none, none), (none, none, ranks[:, :0]), (empty, empty, ranks), 0

    def _tables(self, ranks: Tensor, table: Tensor, begun: int, opened: int) -> tuple[Tensor, Tensor]:
        """Places [b, n, E] of the stored rows in [table | rows] for the blocks from `begun` to `opened`, and the last ranks.

        `ranks` [b, t] are those of the rows from the block before `begun` on, `table` [b, E] those of its table.
        """
        place = torch.arange(self.eidetic + ranks.shape[1], device=ranks.device).expand(len(ranks), -1)
        places, first = [place[:, : self.eidetic]], 0
        for block in range(begun, opened):
            if not (self.eidetic and block):  # no table, or no block before this one
                places.append(places[-1])
                continue
            leaving = slice(first, first + self.window)
            table, best = torch.cat([table, ranks[:, leaving]], 1).topk(self.eidetic)
            places.append(torch.cat([places[-1], place[:, self.eidetic :][:, leaving]], 1).gather(1, best))
            first += self.window
        return torch.stack(places, 1), table

    def _attend(self, q: Tensor, own: tuple, faded: tuple, stored: list[Tensor], read: int) -> Tensor:
        """q [b, t, h, d] behind `read` tokens over its blocks' tables [b, n, E, h, d], fading and own rows: [b, t, h, d]."""
        (batch, time), window, count = q.shape[:2], self.window, stored[0].shape[1]
        begun, offset = divmod(read, window)
        first = read + time - faded[0].shape[1]  # place of the first fading row
        columns = []
        for always, past, rows in zip(stored, faded, own, strict=True):
            past = past[:, : (begun + count - 1) * window - first]
            pairs = (
                in_blocks(past, first - (begun - 2) * window, window),
                in_blocks(rows, 0 if begun else window, window),
            )
            pairs = (torch.cat([part[:, :-1], part[:, 1:]], 2) for part in pairs)
            columns.append(torch.cat([always, *pairs], 2).flatten(0, 1))
        q = in_blocks(q, offset, window).flatten(0, 1) if count > 1 else q
        seen = self._seen(begun, count, 0 if count > 1 else offset, q.shape[1], q.device)
        q, k, v = (part.transpose(1, 2) for part in (q, *columns))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.repeat(batch, 1, 1)[:, None]).transpose(1, 2)
        return y.unflatten(0, (batch, count)).flatten(1, 2)[:, offset : offset + time] if count > 1 else y

    def _seen(self, begun: int, count: int, offset: int, rows: int, device: torch.device) -> Tensor:
        """Mask [count, rows, columns] of blocks from `begun` on, whose rows begin at `offset`: table, fading pair, own pair."""
        window = self.window
        block = torch.arange(begun, begun + count, device=device)[:, None, None]
        row, column = torch.arange(offset, offset + rows, device=device)[:, None], torch.arange(window, device=device)
        behind, upto = column > row, column <= row
        table = torch.arange(self.eidetic, device=device) < (block - 1) * window
        parts = (behind & (block > 1), upto & (block > 0), behind & (block > 0), upto & (block >= 0))
        return torch.cat([table.expand(-1, rows, -1), *parts], -1)


def _ranks(z: Tensor, before: Tensor, read: int) -> tuple[Tensor, Tensor]:
    """The rank [b, t] of each output z [b, t, D] behind the last ones, `before` [b, n, D], and the last ones of z."""
    time, rows = z.shape[1], torch.cat([before, z], 1)
    place = torch.arange(read, read + time, device=z.device)
    padded = F.pad(rows, (0, 0, FORESEEN_BY - before.shape[1], 0))
    foreseen = sum(padded[:, shift : shift + time] for shift in range(FORESEEN_BY))
    foreseen = foreseen / place.clamp(1, FORESEEN_BY)[:, None]
    error = (z - foreseen).norm(dim=-1) / (z.norm(dim=-1) + 1e-6)
    steps = (error * STEPS).round().clamp_max(2.0**30).long()
    return steps * PLACES + (PLACES - 1 - place), rows[:, max(0, rows.shape[1] - FORESEEN_BY) :].clone()


def _chosen(rows: Tensor, places: Tensor) -> Tensor:
    """Rows [b, n, E, h, d] of `rows` [b, m, h, d] at `places` [b, n, E]."""
    batch, count = rows.shape[:2]
    flat = places + count * torch.arange(batch, device=rows.device)[:, None, None]
    return rows.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, places.shape)


def _joined(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.cat([past.to(part.dtype), part], 1) for past, part in zip(old, new, strict=True))
