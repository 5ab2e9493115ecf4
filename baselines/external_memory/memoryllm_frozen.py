"""MemoryLLM's pool on a Transformer that was trained without one: how much of a memory frozen weights can use.

Y. Wang, Y. Gao et al. 2024, arXiv 2402.04624, Sections 3.1 and 3.2, whose pool is trained with the model (`memoryllm`). Here the
trained model is a Transformer with attention in a window of w tokens. In evaluation its text is read in segments of w:

    read     queries from the text, keys and values from [P_l | the window], P_l [N, D] the rows of layer l
    write    a pass over a whole segment, keys and values from [the last K rows of P_l | segment]; what layer l makes of the
             segment's last K rows are the new rows M_l; the vector that marks them is learned in the paper, so there is none
    update   P_l <- [N - K rows of P_l, drawn at random and in order | M_l]; the first M_l is repeated until it fills P_l

Rows are dropped as in `memoryllm`, from (draw, update, layer) alone. The reading here: a pool's rows stand right before the
segment, at the N places that end where it begins, and tokens keep the window that they were trained with beside it, so that with
no rows (`pool=0`) the model is exactly its base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.external_memory.pool_layer import kept
from models.law import Law
from models.layers import rotary, split_heads
from models.ops.providers import note
from models.registry import register
from models.shell.added_memory import AddedMemory
from models.shell.model import Block
from models.shell.segments import cut

Cache = tuple[Tensor, Tensor]  # keys, turned, and values [b, n, h, d]
# The pool [b, L, N, D], without rows before the first update; updates; the open segment's embedded rows [b, n, D]; of each layer
# the pool's keys and values, and those of the last w - 1 tokens; tokens read.
State = tuple[Tensor, int, Tensor, tuple[Cache, ...], tuple[Cache, ...], int]


@register(
    "memoryllm-frozen",
    paper="Wang, Gao et al. 2024, arXiv 2402.04624",
    equation="y = softmax(q [P_l | K]^T) [P_l | V];  P_l <- [N - K random rows of P_l | the segment's last K], untrained",
)
class MemoryLLMFrozen(AddedMemory):
    """A windowed Transformer with `pool` rows in each layer, of which each segment of a text replaces `rows`.

    State: the pool and its keys and values, the open segment's embedded rows, each layer's window, the count.
    """

    law = Law(
        forget="K random rows of N", compare="-", write="a pass over the segment", read="softmax over [pool | window]"
    )
    reading = "The pool stands right before the segment, beside the window in which the model was trained without it."

    def __init__(
        self,
        model: nn.Module,
        base: str = "transformer-window",
        base_settings: Mapping[str, Any] | None = None,
        pool: int = 64,
        rows: int = 8,
        draw: int = 0,
        provider: str = "auto",
    ):
        """`base`, `base_settings` and `provider` are the trained model's; `draw` decides which rows an update drops."""
        super().__init__(model)
        mixers = [block.mixer for block in self.blocks]
        if not all(hasattr(mixer, name) for mixer in mixers for name in ("qkv", "out", "heads", "window")):
            raise ValueError(
                "memoryllm-frozen reads beside attention in a window: choose the base 'transformer-window'."
            )
        if pool and not 1 <= rows <= min(pool, self.period) or pool < 0:
            raise ValueError(
                f"memoryllm-frozen needs 1 <= rows ({rows}) <= pool ({pool}) and window ({self.period}), or pool=0."
            )
        self.pool, self.rows, self.draw = pool, rows, draw

    def read(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        x, hidden = self.embedding(tokens), []
        if state is None:
            none = x.new_zeros(len(x), 0, self.blocks[0].mixer.heads, x.shape[2] // self.blocks[0].mixer.heads)
            caches = ((none, none),) * len(self.blocks)
            state = x.new_zeros(len(x), len(self.blocks), 0, x.shape[2]), 0, x[:, :0], caches, caches, 0
        for piece in cut(x, state[-1], self.period):
            h, state = self._within(piece, state)
            hidden.append(h)
            if self.pool and state[-1] % self.period == 0:
                state = self._updated(*state[:3], state[4], state[5])
        return self.base.head(self.base.norm(torch.cat(hidden, 1))), state

    def _within(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a piece x [b, t, D] of one segment: the last layer's rows."""
        note("sdpa")
        pool, updates, begun, held, windows, read = state
        begun, after = torch.cat([begun.to(x.dtype), x], 1) if self.pool else begun, []
        for block, memory, past in zip(self.blocks, held, windows, strict=True):
            q, k, v = _projected(block, x, read)
            keys, values = (torch.cat([old.to(new.dtype), new], 1) for old, new in zip(past, (k, v), strict=True))
            place = torch.arange(x.shape[1], device=x.device)[:, None] + keys.shape[1] - x.shape[1]
            distance = place - torch.arange(keys.shape[1], device=x.device)
            seen = F.pad((distance >= 0) & (distance < self.period), (memory[0].shape[1], 0), value=True)
            x = _rest(block, x, q, memory, (keys, values), seen)
            first = max(0, keys.shape[1] - self.period + 1)
            after.append((keys[:, first:].clone(), values[:, first:].clone()))
        return x, (pool, updates, begun, held, tuple(after), read + q.shape[1])

    def _updated(self, pool: Tensor, updates: int, x: Tensor, windows: tuple[Cache, ...], read: int) -> State:
        """The state behind a whole segment of embedded rows x [b, w, D], with it in the pool."""
        none, pools, held = x[:, :0].clone(), [], []
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        for layer, block in enumerate(self.blocks):
            newest = pool[:, layer, -self.rows :]
            memory = _projected(block, newest, -newest.shape[1])[1:]
            q, *own = _projected(block, x, 0)
            x = _rest(block, x, q, memory, own, F.pad(seen, (newest.shape[1], 0), value=True))
            new = x[:, -self.rows :].to(pool.dtype)
            if updates:
                places = kept(self.pool, self.rows, self.draw, updates, layer)
                stay = torch.tensor(places, dtype=torch.long, device=x.device)
                new = torch.cat([pool[:, layer].index_select(1, stay), new], 1)
            else:
                new = new.repeat(1, -(-self.pool // self.rows), 1)[:, -self.pool :].clone()
            pools.append(new)
            held.append(_projected(block, new, read - self.pool)[1:])
        held = tuple(tuple(part.clone() for part in side) for side in held)
        return torch.stack(pools, 1), updates + 1, none, held, windows, read


def _projected(block: Block, x: Tensor, place: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v [b, t, h, d] of a layer's rows x [b, t, D] that stand from `place` on; q and k turned."""
    q, k, v = (split_heads(part, block.mixer.heads) for part in block.mixer.qkv(block.mixer_norm(x)).chunk(3, dim=-1))
    return rotary(q, place), rotary(k, place), v


def _rest(block: Block, x: Tensor, q: Tensor, memory: Cache, own: Cache, seen: Tensor) -> Tensor:
    """What a layer makes of x [b, t, D] with queries q over the memory's and its own keys and values, where `seen` [t, n]."""
    keys, values = (torch.cat([old.to(new.dtype), new], 1) for old, new in zip(memory, own, strict=True))
    q, k, v = (part.transpose(1, 2) for part in (q, keys, values))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)
    x = x + block.mixer.out(y.flatten(2))
    return x if block.feed is None else x + block.feed(block.feed_norm(x))
