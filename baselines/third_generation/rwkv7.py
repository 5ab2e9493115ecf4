"""RWKV-7 (Goose): the delta rule with keys of its own for comparing, erasing and writing, a decay per channel, and a first value.

Peng et al. 2025, arXiv 2503.14456, as the authors' code has it (BlinkDL/RWKV-LM, RWKV-v7):

    x_i = x + (x_before - x) mu_i  for r, w, k, v, a, g;   r, k, v = W x_i
    log w = -e^{-1/2} sigmoid(w0 + tanh(x_w W1) W2),   a = sigmoid(a0 + x_a A1 A2),   g = sigmoid(x_g G1) G2
    v <- v + (v_first - v) sigmoid(v0 + x_v V1 V2)     in all layers but the first, whose v is v_first
    p = unit(k * k_k),   k <- k (1 + (a - 1) k_a)
    S' = diag(w) S - (a p) (p^T S) + k v^T,   y = W_o ( (GroupNorm(S'^T r) + (r . k r_k) v) * g )

    x <- x + y(ln1 x),   x <- x + W_v relu(W_k (z + (z_before - z) mu))^2,  z = ln2 x

Every layer needs the first one's values, so this is a whole language model. Initialisation is the authors' trainer's: mu, w0, a0,
v0 by layer and channel, W1, A1, V1, G1 zero, W_o and the channel mixing's W_v zero, the other matrices orthogonal (W_k of the
keys with gain 0.1). Ranks are 2.5 sqrt(d) for w and a, 1.7 sqrt(d) for v, 5 sqrt(d) for g, rounded to 32. What is no `weight`
of a matrix does not decay.

Deviations: the embedding is tied to the output, theirs is not, and drawn normal with 0.02, or 2 / d where that is less: as small
as theirs (1e-4) the output would hardly learn, and larger a new model, whose layers are silent, would repeat its input. Channel
mixing is `feed` units wide, solved so that parameters match, theirs 4 d; heads are the size's, theirs of width 64; ranks of
models below 64 wide are rounded to half the width; w0 learns at the rate of all else, theirs at twice that, and their penalty on
large logits is left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import at_least_float32, head_norm, split_heads
from models.layers.rwkv import RWKVChannelMixing, embedding_spread, token_shift
from models.ops.erase_and_write import erase_and_write
from models.ops.erase_and_write.flops import erase_and_write_flops
from models.ops.flops import Flops, product_flops
from models.registry import register
from models.shell.carried_state import StateMismatch
from models.shell.model import LanguageModel, Size

SILENT = "the factor before it is 0 at first, and moves only once W_o has"
LayerState = tuple[Tensor, Tensor, Tensor]  # last inputs of time and channel mixing [b, d], and S [b, h, k, v]


class LowRank(nn.Module):
    """`x W1 W2`, tanh or sigmoid between, plus a bias where there is one; W1 is 0 at first, W2 orthogonal."""

    no_weight_decay = ("down", "up", "bias")

    def __init__(self, width: int, inner: int, factor: float, bias: Tensor | None = None):
        super().__init__()
        step = min(32, width // 2) or 1
        rank = max(step, round(factor * width**0.5 / step) * step)
        self.down = nn.Parameter(torch.zeros(width, rank))
        self.up = nn.Parameter(_orthogonal(torch.empty(rank, inner), 0.1 * max(1.0, rank / inner) ** 0.5))
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor, between: str = "") -> Tensor:
        inside = x @ self.down
        if between:
            inside = getattr(torch, between)(inside)
        y = inside @ self.up
        return y if self.bias is None else at_least_float32(y) + self.bias


class TimeMixing(nn.Module):
    """What takes attention's place; it is given the normed stream, and the first layer's values."""

    no_weight_decay = ("mix", "k_k", "k_a", "r_k")

    def __init__(self, width: int, heads: int, inner: int, index: int, depth: int, provider: str):
        super().__init__()
        self.heads, self.provider = heads, provider
        rising, falling = index / max(1, depth - 1), 1 - index / depth
        channel, head = torch.arange(inner), inner // heads
        line = channel / max(1, inner - 1)
        place = 2 * (channel % head) / max(1, head - 1) - 1
        zigzag, centred = place * place.abs(), line - 0.5
        powers = torch.tensor([0.2, 0.9, 0.7, 0.7, 0.9, 0.2])  # of r, w, k, v, a, g
        self.mix = nn.Parameter(1 - (torch.arange(width) / width) ** (powers[:, None] * falling))
        self.receptance, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, width, bias=False)
        self.decay = LowRank(width, inner, 2.5, -5.5 + 6 * line ** (1 + rising**0.3) + 2.5 * zigzag)
        self.rate = LowRank(width, inner, 2.5, -0.19 + 0.3 * zigzag + 0.4 * centred)
        self.keep = LowRank(width, inner, 1.7, 0.73 - 0.4 * centred) if index else None
        self.gate = LowRank(width, inner, 5.0)
        self.k_k = nn.Parameter(0.71 - 0.1 * centred)
        self.k_a = nn.Parameter(torch.full((inner,), 1.02))
        self.r_k = nn.Parameter(torch.full((heads, head), -0.04))
        self.norm = nn.GroupNorm(heads, inner, eps=64e-5)
        nn.init.constant_(self.norm.weight, ((1 + index) / depth) ** 0.7)
        for layer, gain in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0), (self.out, 0.0)):
            _orthogonal(layer.weight, gain)

    def forward(self, x: Tensor, last: Tensor | None, state: Tensor | None, first: Tensor | None):
        """y, the last input, S, and the first layer's values."""
        r, w, k, v, a, g = _mixed(x, last, self.mix)
        r, k, v, mixed_v = self.receptance(r), self.key(k), self.value(v), v
        if self.keep is None:
            first = v
        else:
            v = v + (first - v) * self.keep(mixed_v).sigmoid().to(v.dtype)
        log_forget = -math.exp(-0.5) * self.decay(w, "tanh").sigmoid()
        a = self.rate(a).sigmoid()
        unit = F.normalize(at_least_float32(split_heads(k * self.k_k, self.heads)), dim=-1)
        k = k * (1 + (a - 1) * self.k_a).to(k.dtype)
        r, k, v, a, log_forget = (split_heads(part, self.heads) for part in (r, k, v, a, log_forget))
        y, state = erase_and_write(
            r, unit, k, v, log_forget=log_forget, erase=a * unit, before=True, state=state, provider=self.provider
        )
        y = split_heads(head_norm(y, self.norm), self.heads)
        y = y + (r * k * self.r_k).sum(-1, keepdim=True) * v
        return self.out(y.flatten(2) * self.gate(g, "sigmoid")), x[:, -1].clone(), state, first


class ChannelMixing(RWKVChannelMixing):
    """What takes the feed-forward layer's place."""

    def __init__(self, width: int, units: int, index: int, depth: int):
        super().__init__(width, units, 1 - (torch.arange(width) / width)[None] ** ((1 - index / depth) ** 4))

    @staticmethod
    def mixed(x: Tensor, shifted: Tensor, share: Tensor) -> Tensor:
        """In the order of the time mixing."""
        return x + (shifted - x) * share


class GooseBlock(nn.Module):
    """One layer: time mixing and channel mixing, each behind its norm and beside the stream."""

    feed = None  # the shell initialises none

    def __init__(self, size: Size, units: int, inner: int, index: int, provider: str):
        super().__init__()
        self.enter = nn.Identity() if index else nn.LayerNorm(size.width)
        self.mixer_norm, self.channel_norm = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.mixer = TimeMixing(size.width, size.heads, inner, index, size.depth, provider)
        self.channels = ChannelMixing(size.width, units, index, size.depth)

    def forward(self, x: Tensor, state: LayerState | None, first: Tensor | None) -> tuple[Tensor, LayerState, Tensor]:
        time_last, channel_last, matrix = (None, None, None) if state is None else state
        x = self.enter(x)
        y, time_last, matrix, first = self.mixer(self.mixer_norm(x), time_last, matrix, first)
        x = x + y
        y, channel_last = self.channels(self.channel_norm(x), channel_last)
        return x + y, (time_last, channel_last, matrix), first


@register(
    "rwkv7",
    paper="Peng et al. 2025, arXiv 2503.14456",
    equation="S' = diag(w) S - (a p) (p^T S) + k v^T;  y = S'^T r",
)
class RWKV7(LanguageModel):
    """The whole language model. State: for each layer, the last inputs of both mixings and S."""

    law = Law(
        forget="w, per key channel, from x",
        compare="S^T p, before forgetting",
        write="k v^T - (a p) (S^T p)^T",
        read="S^T r",
    )
    fixed_state = True
    period = 64
    no_gradient = {f"{name}.up": SILENT for name in ("decay", "rate", "keep")}

    def __init__(self, size: Size, feed: int, inner: int | None = None, provider: str = "auto"):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        inner = size.width if inner is None else inner
        if inner % size.heads:
            raise ValueError(f"The inner width {inner} must be a multiple of the {size.heads} heads; change inner.")
        super().__init__(size, [GooseBlock(size, feed, inner, index, provider) for index in range(size.depth)])
        nn.init.normal_(self.embedding.weight, std=min(0.02, embedding_spread(size.width)))
        self.norm = nn.LayerNorm(size.width)

    def hidden(self, tokens: Tensor, state: tuple[LayerState, ...] | None) -> tuple[Tensor, tuple[LayerState, ...]]:
        if state is not None and (not isinstance(state, tuple | list) or len(state) != len(self.blocks)):
            raise StateMismatch(f"That state is no tuple of {len(self.blocks)} layers' states: it is another model's.")
        x, states, first = self.embedding(tokens), [], None
        for index, block in enumerate(self.blocks):
            x, after, first = block(x, None if state is None else state[index], first)
            states.append(after)
        return self.norm(x), tuple(states)

    def flops(self, time: int) -> Flops:
        """Of the recurrence and the low-rank maps."""
        maps = sum(part.down.numel() + part.up.numel() for part in self.modules() if isinstance(part, LowRank))
        keys = self.blocks[0].mixer.out.in_features // self.size.heads
        law = erase_and_write_flops(time, self.size.heads, keys, keys, kinds=2)
        return law.times(len(self.blocks)).plus(product_flops(time * maps))


def _mixed(x: Tensor, last: Tensor | None, mix: Tensor) -> tuple[Tensor, ...]:
    """x [b, t, d] moved towards the token before it by each row of `mix` [n, d]; `last` is the one before the first."""
    apart = token_shift(x, last)[0] - x
    return tuple(x + apart * share for share in mix.to(x.dtype))


def _orthogonal(x: Tensor, gain: float) -> Tensor:
    """x, drawn orthogonal in place; zeros for a gain of 0, and untouched where it has a shape alone."""
    if gain == 0:
        return nn.init.zeros_(x)
    return x if x.is_meta else nn.init.orthogonal_(x, gain)
