"""CAMELoT: in each attention layer of a trained model a table of slots consolidates the keys and values of the text so far.

He et al. 2024, arXiv 2402.13449, of which no code is public. The table of each layer and head holds for each slot a key K [d], a
value V [d], a count c and an age. A segment of tokens is read and then written, token by token:

    read     token j finds the slot of the most similar key; the found (K, V) stand in attention before the segment's own
    write    similarity above R:  K <- (c K + k) / (c + 1),  V <- (c V + v) / (c + 1),  c <- c + 1,  age <- 0
             else:                a new slot (k, v), c = 1; where none is free it replaces the oldest

The reading here, where the paper is silent: similarity is the cosine of keys before their rotary turn, and slots hold keys before
it; token i sees what tokens j <= i of its segment have found, each by itself, so that nothing looks ahead; segments are counted
from the text's start, and the table stands still within one. `place` says where a found key stands, for the rotary turn:

    before   what a segment's tokens found stands in their order right before it, where the segment before it stood: what token j
             found, a segment before j
    token    what token j found stands where j does
    none     nowhere: queries meet it unturned, though no training has seen them so

The base attends in a window of as many tokens as a segment has. With `view="window"` tokens keep that window beside what they
found, so that the model without memory is exactly the base as it was trained; `view="segment"`, the paper's, cuts their view at
their segment's start. The threshold R is chosen on the validation split.

Deviations: 128 slots and segments of 64 instead of 10,000 and 128 to 2,048, for models of this size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import rotary, split_heads
from models.ops.providers import note
from models.registry import register
from models.shell.added_memory import AddedMemory

PLACES = ("before", "token", "none")  # where found keys stand


class Slots(NamedTuple):
    """The table of one layer: keys and values [b, h, m, d], counts and ages [b, h, m]; a slot of count 0 is free."""

    keys: Tensor
    values: Tensor
    count: Tensor
    age: Tensor


# Of a layer: keys before their turn and values [b, n, h, d], the slots found [b, n, h], the table, the tokens read.
State = tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...], int]


@register(
    "camelot",
    paper="He et al. 2024, arXiv 2402.13449",
    equation="K <- (c K + k) / (c + 1) where cos(K, k) > R, else a new slot;  attention over [found slots | window]",
)
class CAMELoT(AddedMemory):
    """A windowed Transformer with a table of slots in each layer, which no training has seen.

    State of a layer: the last `window - 1` keys and values, the table, the slots that the open segment's tokens found, the count.
    """

    law = Law(
        forget="the oldest slot, where all are taken",
        compare="cosine of k and every slot's K",
        write="the running mean of K, V in the nearest slot above R, else a new one",
        read="attention to the slots found and the segment",
    )
    reading = (
        "Slots hold keys before the rotary turn; a token sees what its segment's tokens up to it found, each a segment before "
        "the token that found it."
    )
    detaches = "what is written into the table carries no gradient"
    grid, default = {"threshold": (0.7, 0.8, 0.9, 0.95)}, {"threshold": 0.9}

    def __init__(
        self,
        model: nn.Module,
        base: str = "transformer-window",
        base_settings: Mapping[str, Any] | None = None,
        slots: int = 128,
        threshold: float | None = None,
        view: Literal["window", "segment"] = "window",
        place: Literal["before", "token", "none"] = "before",
        provider: str = "auto",
    ):
        """`base`, `base_settings` and `provider` are the trained model's; `threshold` None is chosen on validation."""
        super().__init__(model, threshold=threshold)
        mixers = [block.mixer for block in self.blocks]
        if not all(hasattr(mixer, name) for mixer in mixers for name in ("qkv", "out", "heads", "window")):
            raise ValueError(
                "camelot reads beside softmax attention in a window: choose the base 'transformer-window'."
            )
        if slots < 0 or not (threshold is None or -1 <= threshold <= 1) or view not in ("window", "segment"):
            raise ValueError(
                "camelot needs slots >= 0, a threshold from -1 to 1 (or None) and view='window' or 'segment'."
            )
        if place not in PLACES:
            raise ValueError(f"camelot has no place '{place}' for found keys; choose {', '.join(PLACES)}.")
        self.slots, self.view, self.place = slots, view, place

    def read(self, tokens: Tensor, state: tuple[State, ...] | None) -> tuple[Tensor, tuple[State, ...]]:
        x, states = self.embedding(tokens), []
        for index, block in enumerate(self.blocks):
            y, after = self._attend(block.mixer, block.mixer_norm(x), None if state is None else state[index])
            x = x + y
            if block.feed is not None:
                x = x + block.feed(block.feed_norm(x))
            states.append(after)
        return self.base.norm(x) @ self.embedding.weight.to(x.dtype).T, tuple(states)

    def _attend(self, mixer: nn.Module, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One layer over a piece x [b, t, D], segment by segment; a segment that is whole is written behind its last token."""
        note("sdpa")
        with torch.autocast(x.device.type, enabled=False):  # what decides about slots is never rounded to half
            q, k, v = (split_heads(part, mixer.heads) for part in mixer.qkv(x.to(mixer.qkv.weight.dtype)).chunk(3, -1))
            if state is None:
                state = self._empty(k)
            ys, start = [], 0
            while start < x.shape[1]:
                stop = min(x.shape[1], start + mixer.window - state[4] % mixer.window)
                y, state = self._within(mixer.window, *(part[:, start:stop] for part in (q, k, v)), state)
                ys.append(y)
                start = stop
        return mixer.out(torch.cat(ys, 1).flatten(2).to(x.dtype)), state

    def _empty(self, k: Tensor) -> State:
        rows, _, heads, head = k.shape
        table = k.new_zeros(rows, heads, self.slots, head)
        slots = Slots(table, table.clone(), table.new_zeros(table.shape[:3]), table.new_zeros(table.shape[:3]))
        return k[:, :0], k[:, :0], torch.zeros(rows, 0, heads, dtype=torch.long, device=k.device), tuple(slots), 0

    def _within(self, window: int, q: Tensor, k: Tensor, v: Tensor, state: State) -> tuple[Tensor, State]:
        """A piece of one segment: q, k, v [b, t, h, d], keys and queries unturned."""
        keys, values, found, slots, read = *state[:3], Slots(*state[3]), state[4]
        time, before, opened = k.shape[1], keys.shape[1], read % window
        keys, values = torch.cat([keys.to(k.dtype), k], 1), torch.cat([values.to(v.dtype), v], 1)
        found = torch.cat([found, _most_similar(slots, k)], 1)
        turned = rotary(keys, read - before)
        own = read + torch.arange(time, device=k.device)[:, None]  # places
        distance = own - (read - before + torch.arange(before + time, device=k.device))
        seen = (distance >= 0) & (distance < (window if self.view == "window" else own % window + 1))
        has_found = (found >= 0).permute(0, 2, 1)[:, :, None]  # [b, h, 1, n]
        shown = has_found & (own >= read - opened + torch.arange(opened + time, device=k.device))
        mask = torch.cat([shown, seen.expand(*shown.shape[:2], -1, -1)], -1)
        memory = _taken(slots, found)
        if self.place == "none":
            y = _beside(q, rotary(q, read), turned, values, memory, mask)
        else:
            stands = read - opened - (window if self.place == "before" else 0)
            y = _behind(rotary(q, read), turned, values, (rotary(memory[0].transpose(1, 2), stands), memory[1]), mask)
        read += time
        if read % window == 0:
            slots, found = self._written(slots, keys[:, -window:], values[:, -window:]), found[:, :0]
        kept = max(0, keys.shape[1] - (window - 1))
        return y, (keys[:, kept:].clone(), values[:, kept:].clone(), found.clone(), tuple(slots), read)

    @torch.no_grad()
    def _written(self, slots: Slots, k: Tensor, v: Tensor) -> Slots:
        """The table after the tokens k, v [b, n, h, d] of a segment, one by one; the one given stays as it was."""
        if not self.slots:
            return slots
        keys, values, count, age = (part.detach().clone() for part in slots)
        unit, units, threshold = F.normalize(keys, dim=-1), F.normalize(k.detach(), dim=-1), self.chosen["threshold"]
        for place in range(k.shape[1]):
            alike = (unit @ units[:, place, :, :, None])[..., 0].masked_fill(count == 0, -torch.inf)
            best, nearest = alike.max(-1)
            merges = best > threshold
            oldest = age.masked_fill(count == 0, torch.inf).argmax(-1)  # the first that is free, while there is one
            slot = nearest.where(merges, oldest)[..., None]
            c = count.gather(2, slot).masked_fill(~merges[..., None], 0.0)
            row = slot[..., None].expand(-1, -1, -1, keys.shape[-1])
            for table, new in ((keys, k), (values, v)):
                table.scatter_(
                    2, row, (c[..., None] * table.gather(2, row) + new[:, place, :, None]) / (c + 1)[..., None]
                )
            unit.scatter_(2, row, F.normalize(keys.gather(2, row), dim=-1))
            count.scatter_(2, slot, c + 1)
            age = (age + 1).scatter(2, slot, 0.0)
        return Slots(keys, values, count, age)


def _most_similar(slots: Slots, k: Tensor) -> Tensor:
    """The slot [b, n, h] of the key most similar to each of k [b, n, h, d], the earlier of equal ones; -1 in an empty table."""
    if not slots.count.shape[-1]:
        return torch.full(k.shape[:3], -1, dtype=torch.long, device=k.device)
    with torch.no_grad():
        unit, units = F.normalize(slots.keys.to(k.dtype), dim=-1), F.normalize(k, dim=-1)
        alike = (units.transpose(1, 2) @ unit.mT).masked_fill((slots.count == 0)[:, :, None], -torch.inf)
        best, slot = alike.max(-1)
        return slot.masked_fill(best == -torch.inf, -1).transpose(1, 2)


def _taken(slots: Slots, found: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [b, h, n, d] of the slots `found` [b, n, h]; zeros where none was."""
    row = found.transpose(1, 2)[..., None].clamp_min(0).expand(-1, -1, -1, slots.keys.shape[-1])
    if not slots.keys.shape[2]:
        return (slots.keys.new_zeros(row.shape),) * 2
    return slots.keys.gather(2, row), slots.values.gather(2, row)


def _behind(q: Tensor, k: Tensor, v: Tensor, found: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Attention [b, t, h, d] of queries over found keys [b, n, h, d], values [b, h, n, d], and k, v behind them; all turned."""
    keys = torch.cat([found[0].to(k.dtype), k], 1).transpose(1, 2)
    values = torch.cat([found[1].to(v.dtype), v.transpose(1, 2)], 2)
    return F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=mask).transpose(1, 2)


def _beside(q: Tensor, turned_q: Tensor, k: Tensor, v: Tensor, found: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Attention [b, t, h, d] over found slots, met by the unturned query q, and keys k, met by the turned one; one softmax."""
    head = q.shape[-1]
    one, other = (F.pad(x.transpose(1, 2), side) for x, side in ((q, (0, head)), (turned_q, (head, 0))))
    keys = torch.cat([F.pad(found[0].to(k.dtype), (0, head)), F.pad(k.transpose(1, 2), (head, 0))], 2)
    values = torch.cat([found[1].to(v.dtype), v.transpose(1, 2)], 2)
    y = F.scaled_dot_product_attention(one + other, keys, values, attn_mask=mask, scale=head**-0.5)
    return y.transpose(1, 2)
