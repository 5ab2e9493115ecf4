"""Block-Recurrent Transformer: one layer of many carries a set of state vectors from window to window.

Hutchins, Schlag, Wu, Dyer, Neyshabur 2022, arXiv 2203.07852, Section 3, as the authors' code (google-research/meliad) has it.
k, q, q' are unit vectors, a and a' learned scales of the heads:

    token   attends to the W tokens before it, itself not among them:   softmax( |a| (q k + bias(distance)) ) v
            and, in the recurrent layer, to the states S of before its window:   softmax( |a'| q' k_S ) v_S
    states  once a window is full, to themselves and, by q'_S, to the tokens of that window and of the one before
            S <- gate(S, W_o [ self | cross ])

    bias    g S + (1 - g) out,  g = sigmoid(b)                                 one number a channel (default)
    lstm    sigmoid(W_f h + b_f + 1) S + sigmoid(W_i h + b_i - 1) out          h = [ self | cross ]
    full    g S + (1 - g) out,  g = sigmoid(W_g h + b_g + 1)

Before a text stand W keys and values of zero, which are seen. Bias: 32 buckets of T5, exact below 16, then logarithmic up to 128.
States are normed and then have learned places added, N(0, 1); S begins learned, N(0, 0.1). Weights N(0, 1 / fan in), truncated,
gates' with a tenth of that variance, their biases N(0, 0.1). Scales begin at `scale`, 1 in their code; under it unit vectors
give a flat softmax, and sqrt(d) learns sooner. Scales, bias and the gate's b do not decay.

Deviations: states have no feed-forward layer of their own (the paper's recommended "skip"); SwiGLU in place of their MLP; window
and states default to 64 and 16 instead of 512, for models trained on hundreds of tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import RMSNorm, at_least_float32, l2_norm, lecun_normal, linear_flops, split_heads
from models.ops.flops import Flops, attention_flops, filled, product_flops
from models.ops.providers import note
from models.registry import register
from models.shell.model import Block, LanguageModel, Size
from models.shell.segments import in_blocks

# Keys and values [b, W + c, h, d] of the window before and of the open one, which has c tokens; the recurrent layer's states.
State = tuple[Tensor, Tensor, int] | tuple[Tensor, Tensor, int, Tensor]


def buckets(distance: Tensor) -> Tensor:
    """T5's bucket of each distance: itself below 16, then 16 logarithmic steps up to 128; 0 for what lies ahead."""
    distance = distance.clamp_min(0)
    octaves = (distance.clamp_min(16).double() / 16 + torch.finfo(torch.float32).eps).log2()
    return torch.where(distance < 16, distance, (16 + 16 * octaves / 3).long().clamp_max(31))


def _linear(inputs: int, outputs: int, bias: bool = False, share: float = 1.0) -> nn.Linear:
    """A linear map with flax's first weights, of `share` of the usual variance."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(lecun_normal(outputs, inputs, fan_in=inputs) * share**0.5)
    return layer


class WindowLayer(nn.Module):
    """Attention of each token to the `window` tokens before it."""

    fixed_state = True
    no_weight_decay = ("scale", "bias")

    def __init__(self, width: int, heads: int, window: int, scale: float, results: int = 1):
        super().__init__()
        self.heads, self.window = heads, window
        self.query, self.key, self.value = (_linear(width, width) for _ in range(3))
        self.out = _linear(results * width, width)
        self.scale = nn.Parameter(torch.full((heads,), scale))
        self.bias = nn.Parameter(torch.randn(heads, 32) * 32**-0.5)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        keys, values, count = self.columns(x, state)
        y = self.attend(l2_norm(split_heads(self.query(x), self.heads)), keys, values, count)
        return self.out(y.flatten(2)), self.rest(keys, values, count + x.shape[1])

    def columns(self, x: Tensor, state: State | None) -> tuple[Tensor, Tensor, int]:
        """Keys and values from the window before the open one on, and the open window's tokens before x."""
        new = l2_norm(split_heads(self.key(x), self.heads)), split_heads(self.value(x), self.heads)
        if state is None:
            return *(F.pad(part, (0, 0, 0, 0, self.window, 0)) for part in new), 0
        return *(torch.cat([old.to(part.dtype), part], 1) for old, part in zip(state[:2], new, strict=True)), state[2]

    def rest(self, keys: Tensor, values: Tensor, total: int) -> State:
        """The state behind `total` tokens of the open and later windows."""
        closed = total // self.window * self.window
        return keys[:, closed:].clone(), values[:, closed:].clone(), total - closed

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, count: int) -> Tensor:
        """q [b, t, h, d], which begins at place `count` of the open window, over its columns: [b, t, h, d]."""
        note("chunked")
        batch, time, window = *q.shape[:2], self.window
        blocks = count + time > window
        if blocks:
            q = in_blocks(q, count, window)
            columns = (
                in_blocks(part, 0, window) for part in (keys, values)
            )  # blocks n and n + 1 are seen from block n
            keys, values = (torch.cat([part[:, :-1], part[:, 1:]], 2).flatten(0, 1) for part in columns)
            q = q.flatten(0, 1)
        rows, seen = q.shape[1], keys.shape[1]
        distance = torch.arange(seen - rows, seen, device=q.device)[:, None] - torch.arange(seen, device=q.device)
        scale = self.scale.abs()[:, None, None]
        bias = at_least_float32(self.bias[:, buckets(distance)] * scale)
        bias = bias.masked_fill((distance < 1) | (distance > window), -torch.inf)
        q = q.transpose(1, 2) * scale.to(q.dtype)
        weight = (q @ keys.permute(0, 2, 3, 1) + bias).softmax(-1).to(values.dtype)
        y = (weight @ values.transpose(1, 2)).transpose(1, 2)
        return y.unflatten(0, (batch, -1)).flatten(1, 2)[:, count : count + time] if blocks else y

    def flops(self, time: int) -> Flops:
        """Of attention to this window and the one before."""
        rows, seen = filled(time, self.window), 2 * self.window
        if time <= self.window:
            rows, seen = time, self.window + time
        return product_flops(2 * rows * seen * self.out.out_features)


class RecurrentLayer(WindowLayer):
    """The layer whose tokens also attend to states, which are updated behind every window."""

    no_weight_decay = ("scale", "bias", "cross_scale", "state_scales", "gate_bias")
    with_weight_decay = ("first", "place")

    def __init__(self, width: int, heads: int, window: int, scale: float, states: int, gate: str):
        super().__init__(width, heads, window, scale, results=2)
        self.cross_query = _linear(width, width)
        self.cross_scale = nn.Parameter(torch.full((heads,), scale))
        self.state_norm = RMSNorm(width)
        self.state_project, self.state_out = _linear(width, 4 * width), _linear(2 * width, width)
        self.state_scales = nn.Parameter(torch.full((2, heads), scale))
        self.first, self.place = (
            nn.Parameter(0.1 * torch.randn(states, width)),
            nn.Parameter(torch.randn(states, width)),
        )
        gates = {"bias": 0, "full": 1, "lstm": 2}[gate]
        self.gate = _linear(2 * width, gates * width, bias=True, share=0.1) if gates else None
        self.gate_bias = None if gates else nn.Parameter(0.1 * torch.randn(width))
        if gates:
            nn.init.normal_(self.gate.bias, std=0.1)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        keys, values, count = self.columns(x, state)
        states = self.first.expand(len(x), -1, -1) if state is None else state[3]
        seen, window, total = [], self.window, count + x.shape[1]
        for start in range(0, total, window):
            asked = self.parts(states)
            seen.append(asked[:2])
            if start + window <= total:
                columns = (part[:, start : start + 2 * window] for part in (keys, values))
                states = self.update(states, asked, *columns)
        y = self.attend(l2_norm(split_heads(self.query(x), self.heads)), keys, values, count)
        q = in_blocks(l2_norm(split_heads(self.cross_query(x), self.heads)), count, window)
        k, v = (torch.stack(part, 1).flatten(0, 1) for part in zip(*seen, strict=True))
        crossed = (
            cross(q.flatten(0, 1), k, v, self.cross_scale).unflatten(0, (len(x), -1)).flatten(1, 2)[:, count:total]
        )
        return self.out(torch.cat([y.flatten(2), crossed.flatten(2)], -1)), (
            *self.rest(keys, values, total),
            states.clone(),
        )

    def parts(self, states: Tensor) -> tuple[Tensor, ...]:
        """Keys, values and both queries [b, N, h, d] of states [b, N, D]."""
        x = (self.state_norm(states) + self.place.to(states.dtype)).to(self.state_project.weight.dtype)
        k, v, *queries = (split_heads(part, self.heads) for part in self.state_project(x).chunk(4, dim=-1))
        return l2_norm(k), v, *map(l2_norm, queries)

    def update(self, states: Tensor, asked: tuple[Tensor, ...], keys: Tensor, values: Tensor) -> Tensor:
        """The states behind a window, whose keys and values [b, 2 W, h, d] include those of the window before."""
        k, v, q, other = asked
        found = cross(q, k, v, self.state_scales[0]), cross(other, keys, values, self.state_scales[1])
        h = torch.cat([part.flatten(2) for part in found], -1)
        out = at_least_float32(self.state_out(h))
        if self.gate is None:
            return torch.lerp(out, at_least_float32(states), at_least_float32(self.gate_bias).sigmoid())
        kept, *new = (at_least_float32(self.gate(h))).split(out.shape[-1], -1)
        kept = (kept + 1).sigmoid()
        return kept * states + ((new[0] - 1).sigmoid() if new else 1 - kept) * out

    def flops(self, time: int) -> Flops:
        """Of attention, of tokens to states, and of what states pass and attend to."""
        count, width, states = -(-time // self.window), self.out.out_features, len(self.first)
        total = super().flops(time).plus(attention_flops(count * self.window, states, width))
        total = total.plus(attention_flops(states, states + 2 * self.window, width).times(time // self.window))
        total = total.plus(linear_flops(self.state_project, count * states - time))
        rest = nn.ModuleList([self.state_out, *([] if self.gate is None else [self.gate])])
        return total.plus(linear_flops(rest, time // self.window * states - time))


def cross(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """softmax(|scale| q k) v, every row over all columns: [b, n, h, d]."""
    q = q * scale.abs()[:, None].to(q.dtype)
    y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), scale=1.0)
    return y.transpose(1, 2)


def token_by_token(model: BlockRecurrent, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
    """The logits of a whole text from the equations, one token after the other."""
    x = model.embedding(tokens)
    for block in model.blocks:
        x = x + _layer(block.mixer, block.mixer_norm(x))
        x = x + block.feed(block.feed_norm(x))
    return model.norm(x) @ model.embedding.weight.T, None


def _layer(layer: WindowLayer, x: Tensor) -> Tensor:
    window, ys = layer.window, []
    keys, values, _ = layer.columns(x, None)  # those of token t stand at t + window
    states = layer.first.expand(len(x), -1, -1) if isinstance(layer, RecurrentLayer) else None
    bias = layer.bias[:, buckets(torch.arange(window, 0, -1))]
    for t in range(x.shape[1]):
        if states is not None and t and t % window == 0:
            states = layer.update(
                states, layer.parts(states), keys[:, t - window : t + window], values[:, t - window : t + window]
            )
        q = l2_norm(split_heads(layer.query(x[:, t]), layer.heads))
        scores = (torch.einsum("bhd,bjhd->bhj", q, keys[:, t : t + window]) + bias) * layer.scale.abs()[:, None]
        y = torch.einsum("bhj,bjhd->bhd", scores.softmax(-1), values[:, t : t + window]).flatten(1)
        if states is not None:
            k, v = layer.parts(states)[:2]
            q = l2_norm(split_heads(layer.cross_query(x[:, t]), layer.heads))
            scores = torch.einsum("bhd,bjhd->bhj", q, k) * layer.cross_scale.abs()[:, None]
            y = torch.cat([y, torch.einsum("bhj,bjhd->bhd", scores.softmax(-1), v).flatten(1)], -1)
        ys.append(y)
    return layer.out(torch.stack(ys, 1))


@register(
    "block-recurrent",
    paper="Hutchins, Schlag, Wu, Dyer and Neyshabur 2022, arXiv 2203.07852",
    equation="y = [Attn(window), Attn(S)];  S <- g S + (1 - g) W_o [Attn(S -> S), Attn(S -> window)]",
)
class BlockRecurrent(LanguageModel):
    """A whole language model: windowed attention in all layers, `states` in the third from the last (or the first)."""

    fixed_state = True
    least_depth = 2  # one recurrent layer alone, with two attentions for tokens and for states, is beyond the budget
    law = Law(
        "g, per channel, each window", "-", "(1 - g) W_o [attention of S to S and to the window]", "softmax over S"
    )
    reference = staticmethod(token_by_token)

    def __init__(
        self,
        size: Size,
        feed: int,
        window: int = 64,
        states: int = 16,
        gate: Literal["bias", "lstm", "full"] = "bias",
        scale: float = 1.0,
    ):
        if min(window, states) < 1 or gate not in ("bias", "lstm", "full") or scale <= 0:
            raise ValueError("Block-Recurrent needs window and states >= 1, scale > 0, and gate bias, lstm or full.")
        where, given = max(0, size.depth - 3), (size.width, size.heads, window, float(scale))
        mixers = [
            RecurrentLayer(*given, states, gate) if i == where else WindowLayer(*given) for i in range(size.depth)
        ]
        super().__init__(size, [Block(size.width, mixer, feed) for mixer in mixers])
        self.window = window

    @property
    def period(self) -> int:
        """The window."""
        return self.window
