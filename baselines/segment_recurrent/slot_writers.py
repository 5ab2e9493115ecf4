"""What Memformer's slots become behind a segment: the paper's one attention and normalisation, or MemBART's layers and gate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import at_least_float32, layer_norm, linear_flops, split_heads
from models.ops.flops import Flops, product_flops


class SlotAttention(nn.Module):
    """Attention of each slot to itself and to a segment's rows, `W_o softmax([q_i k_i | q_i K^T] / (sqrt(d) tau)) [v_i ; V]`."""

    def __init__(self, width: int, heads: int, temperature: float):
        super().__init__()
        self.heads, self.temperature = heads, temperature
        self.query, self.key_value = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        for layer, scale in ((self.query, 1.0), (self.key_value, 1.0), (self.out, 0.5)):
            nn.init.normal_(layer.weight, std=scale * width**-0.5)

    def attend(self, slots: Tensor, x: Tensor) -> Tensor:
        """What slots [b, k, D] find in themselves and in rows [b, t, D], in whose dtype."""
        slots = slots.to(x.dtype)
        q = split_heads(self.query(slots), self.heads).transpose(1, 2)
        (own_k, own_v), (k, v) = (self._keys_values(part) for part in (slots, x))
        scores = torch.cat([(q * own_k).sum(-1, keepdim=True), q @ k.mT], -1) / (q.shape[-1] ** 0.5 * self.temperature)
        weight = at_least_float32(scores).softmax(-1).to(v.dtype)
        found = weight[..., :1] * own_v + weight[..., 1:] @ v
        return self.out(found.transpose(1, 2).flatten(2))

    def cost(self, slots: int, rows: int) -> Flops:
        """Operations for `slots` slots and a segment of `rows` rows."""
        projections = nn.ModuleList([self.query, self.out])
        total = product_flops(slots * 2 * rows * self.out.out_features).plus(linear_flops(projections, slots))
        return total.plus(linear_flops(self.key_value, slots + rows))

    def _keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (split_heads(part, self.heads).transpose(1, 2) for part in self.key_value(x).chunk(2, dim=-1))
        return k, v


class SlotWriter(SlotAttention):
    """The paper's: the slots with what they found and their bias, at unit length."""

    with_weight_decay = ("bias",)

    def __init__(self, width: int, heads: int, slots: int, temperature: float):
        super().__init__(width, heads, temperature)
        self.bias = nn.Parameter(torch.randn(slots, width) * width**-0.5)

    def first(self, rows: int) -> Tensor:
        """The slots before a text, [rows, k, D]."""
        return self.normed(torch.zeros_like(self.bias)).expand(rows, -1, -1)

    def normed(self, slots: Tensor) -> Tensor:
        """Slots with their bias, at unit length."""
        slots = at_least_float32(slots) + at_least_float32(self.bias)
        return slots / slots.norm(dim=-1, keepdim=True).clamp_min(1e-6)

    def forward(self, slots: Tensor, x: Tensor) -> Tensor:
        return self.normed(slots + self.attend(slots, x))


class SlotLayer(SlotAttention):
    """A layer of MemBART's for slots alone: attention, then a network of one hidden layer, each under a LayerNorm."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads, 1.0)
        self.up, self.down = nn.Linear(width, width // 2, bias=False), nn.Linear(width // 2, width, bias=False)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        nn.init.normal_(self.up.weight, std=width**-0.5)
        nn.init.normal_(self.down.weight, std=0.5 * (width // 2) ** -0.5)

    def forward(self, slots: Tensor, x: Tensor) -> Tensor:
        slots = layer_norm(slots + self.attend(slots, x), self.attention_norm)
        return layer_norm(slots + self.down(F.gelu(self.up(slots.to(x.dtype)))), self.feed_norm)

    def cost(self, slots: int, rows: int) -> Flops:
        """`SlotAttention.cost` with the network."""
        return super().cost(slots, rows).plus(linear_flops(nn.ModuleList([self.up, self.down]), slots))


class GatedWriter(nn.Module):
    """MemBART's: slots pass `layers` layers, and a gate says how much of each is taken over; then LN(slots + bias)."""

    with_weight_decay = ("bias",)

    def __init__(self, width: int, heads: int, slots: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(SlotLayer(width, heads) for _ in range(layers))
        self.gate, self.norm = nn.Linear(width, 1), nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.randn(slots, width) * width**-0.5)
        nn.init.normal_(self.gate.weight, std=width**-0.5)
        nn.init.zeros_(self.gate.bias)

    def first(self, rows: int) -> Tensor:
        """The slots before a text, [rows, k, D]."""
        return layer_norm(at_least_float32(self.bias), self.norm).expand(rows, -1, -1)

    def forward(self, slots: Tensor, x: Tensor) -> Tensor:
        new = slots
        for layer in self.layers:
            new = layer(new, x)
        taken = at_least_float32(self.gate(new.to(x.dtype))).sigmoid()
        slots = taken * new + (1 - taken) * slots
        return layer_norm(slots + at_least_float32(self.bias), self.norm)

    def cost(self, slots: int, rows: int) -> Flops:
        """Operations for `slots` slots and a segment of `rows` rows."""
        total = linear_flops(self.gate, slots)
        for layer in self.layers:
            total = total.plus(layer.cost(slots, rows))
        return total
