"""PolySketchFormer: attention of degree 4, exact inside a block, by learned sketches of its square across blocks.

Kacham, Mirrokni and Zhong 2024, arXiv 2310.01655, as the authors' code (google-research, polysketchformer) has it:

    w_ts = (LN_q(q_t) . LN_k(k_s))^4    if s <= t stands in t's block of `block` tokens
           (g(q_t) . g(k_s))^2          if it stands in an earlier one
    y_t  = W_o sum_s w_ts v_s / (1 + sum_s w_ts),    g(x) = sqrt(r) tanh(f_1(x) * f_2(x) / sqrt(r))

q and k are turned by their places first. f_1 and f_2 are each twice [LayerNorm, linear to 8 r, gelu (tanh form), linear to r],
without biases; one g for q and k and all heads. A square of sketches is never negative, and is a product of r (r + 1) / 2
features, of which the complete blocks are summed. `sketch="random"`: g(x) = (LN(x) G_1) * (LN(x) G_2) / sqrt(r) with fixed
Gaussian G, an estimate of the squared product. Blocks are counted from the text's first token; a text may end inside one.

Deviations: r is 8 and the block 32, for heads of 16 numbers and texts of hundreds (theirs 32 or 64, and 256 to 1024); rotary
pairs are the house's (theirs neighbours, which q's and k's maps make one of the other); no sinusoids at the bottom and no bias
at the logits; maps begin as the reference Transformer's, the sketch's as flax draws a linear map.

Speed: a training step at 512 tokens and width 64 on one thread of a CPU takes 1.4 times the reference Transformer's (depth 3, 8
rows), 2.5 times where the sketch's networks are not compiled (`models/ops/learned_sketch`); at 4,096 tokens half of it. They cost
as much in a head of 16 numbers as in one of 32: 256 gelus and 5,000 products for each query and each key of every head.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import at_least_float32, lecun_normal, rotary, split_heads
from models.ops.flops import Flops
from models.ops.kernel_attention import block_attention
from models.ops.kernel_attention.flops import block_attention_flops, random_feature_flops
from models.ops.learned_sketch import learned_sketch
from models.ops.learned_sketch.flops import learned_sketch_flops
from models.registry import register

WIDER = 8  # hidden units of a sketch for each of its numbers


class LearnedSketch(nn.Module):
    """g [.., r] of x [.., d]: two networks side by side, the leading axis of each weight, and their product."""

    with_weight_decay = ("up", "down", "next_up", "next_down")
    no_weight_decay = ("gain", "shift", "next_gain", "next_shift")

    def __init__(self, head: int, count: int):
        super().__init__()
        hidden = WIDER * count
        self.gain, self.shift = nn.Parameter(torch.ones(2, head, 1)), nn.Parameter(torch.zeros(2, head, 1))
        self.up = nn.Parameter(lecun_normal(2, head, hidden, fan_in=head))
        self.down = nn.Parameter(lecun_normal(2, hidden, count, fan_in=hidden))
        self.next_gain, self.next_shift = nn.Parameter(torch.ones(2, count, 1)), nn.Parameter(torch.zeros(2, count, 1))
        self.next_up = nn.Parameter(lecun_normal(2, count, hidden, fan_in=count))
        self.next_down = nn.Parameter(lecun_normal(2, hidden, count, fan_in=hidden))

    def forward(self, x: Tensor, provider: str) -> Tensor:
        """x comes behind a LayerNorm without gain and bias: those go into the first map."""
        up = torch.cat([self.gain * self.up, self.shift.mT @ self.up], 1).mT
        next_up = torch.cat([self.next_gain * self.next_up, self.next_shift.mT @ self.next_up], 1).mT
        return learned_sketch.form_or_auto(provider)(x, up, self.down.mT, next_up, self.next_down.mT)

    def cost(self, rows: int) -> Flops:
        """Operations for `rows` vectors x."""
        return learned_sketch_flops(rows, *self.up.shape[1:], self.down.shape[-1])


class RandomSketch(nn.Module):
    """g [.., r] of x [.., d] whose products estimate the squared product of x behind a LayerNorm."""

    no_weight_decay = ("gain", "shift")

    def __init__(self, head: int, count: int):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(head)), nn.Parameter(torch.zeros(head))
        self.register_buffer("rows", torch.randn(2, head, count))

    def forward(self, x: Tensor, provider: str = "auto") -> Tensor:
        """x comes behind a LayerNorm without gain and bias; two products that no provider has another form of."""
        x = torch.addcmul(self.shift, x, self.gain)
        first, second = self.rows.to(x.dtype)
        return (x @ first) * (x @ second) * self.rows.shape[-1] ** -0.5

    def cost(self, rows: int) -> Flops:
        """Operations for `rows` vectors x."""
        return random_feature_flops(2 * rows, *self.rows.shape[1:])


@register(
    "polysketch",
    paper="Kacham, Mirrokni and Zhong 2024, arXiv 2310.01655",
    equation="y = sum w_ts v_s / (1 + sum w_ts),  w = (q . k)^4 in the block, (g(q) . g(k))^2 before it",
)
class PolySketch(nn.Module):
    """The PolySketch layer. State: the mean of what complete blocks wrote, the open block's keys, g(k) and v, the next place."""

    fixed_state = True
    state_setting = "sketch_width"
    no_weight_decay = ("gain", "shift")
    law = Law(
        forget="-",
        compare="-",
        write="(g(k) (x) g(k)) [v | 1]^T, a block at once",
        read="(S^T (g(q) (x) g(q)) + exact block) / (1 + weights)",
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        sketch_width: int = 8,
        block: int = 32,
        sketch: Literal["learned", "random"] = "learned",
        provider: str = "auto",
    ):
        """`inner` is the width over all heads, the model's by default; `sketch_width` is r."""
        super().__init__()
        inner = width if inner is None else inner
        if inner % (2 * heads):
            raise ValueError(f"PolySketch turns pairs of each head: make inner ({inner}) a multiple of {2 * heads}.")
        if block < 1 or sketch_width < 1:
            raise ValueError(f"PolySketch needs block and sketch_width of at least 1, not {block} and {sketch_width}.")
        if sketch not in ("learned", "random"):
            raise ValueError(f"Unknown sketch '{sketch}'; choose learned or random.")
        self.heads, self.block, self.provider = heads, block, provider
        self.period, head = block, inner // heads
        self.qkv, self.out = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.gain, self.shift = nn.Parameter(torch.ones(2, head)), nn.Parameter(torch.zeros(2, head))  # LN_q, LN_k
        self.sketch = (LearnedSketch if sketch == "learned" else RandomSketch)(head, sketch_width)
        self.sketch_width = sketch_width
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        start = 0 if state is None else state[-1]
        qkv, inner = self.qkv(x), self.out.in_features
        both, v = split_heads(qkv[..., : 2 * inner], 2 * self.heads), split_heads(qkv[..., 2 * inner :], self.heads)
        with torch.autocast(x.device.type, enabled=False):  # fourth powers of bfloat16 numbers are noise
            both = rotary(at_least_float32(both), start)
            both = F.layer_norm(both, both.shape[-1:])  # all norms differ in gain and bias alone
            sketches = self.sketch(both, self.provider).chunk(2, dim=2)
            gain, shift = (part.repeat_interleave(self.heads, 0) for part in (self.gain, self.shift))
            q, k = torch.addcmul(shift, both, gain).chunk(2, dim=2)
        y, state = block_attention(q, k, *sketches, v, block=self.block, state=state, provider=self.provider)
        return self.out(y.flatten(2)), state

    def flops(self, time: int) -> Flops:
        """Of the sketches, the blocks and the sums."""
        head = self.out.in_features // self.heads
        made = self.sketch.cost(2 * time * self.heads)
        return made.plus(block_attention_flops(time, self.heads, head, self.sketch_width, head, self.block))
