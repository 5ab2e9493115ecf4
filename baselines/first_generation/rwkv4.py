"""RWKV-4: a weighted mean of all values before, whose weights decay at a rate that each channel has learned.

Peng et al. 2023, arXiv 2305.13048, Section 3, with the initialisation of the authors' code (BlinkDL/RWKV-LM, RWKV-v4neo). A block
is two halves, each behind a LayerNorm, with its own residual:

    time mixing      num_t = e^{-w} num_{t-1} + e^{k_t} v_t,   den_t = e^{-w} den_{t-1} + e^{k_t},   w = exp(decay)
                     out = W_o ( r * (num_{t-1} + e^{u + k_t} v_t) / (den_{t-1} + e^{u + k_t}) )
                     r = sigmoid(W_r x_r), k = W_k x_k, v = W_v x_v
    channel mixing   out = sigmoid(W_r x_r) * W_v relu(W_k x_k)^2

x_i = mu_i x_t + (1 - mu_i) x_{t-1}, with the token before as the norm left it. What is drawn depends on the layer: decay, u, all
mu; W_k, W_r, W_o of the time mixing and W_r, W_v of the channel mixing begin at 0, the rest orthogonal. The first block also
norms the embedding. Both halves stand here: the mixer is given the residual stream and returns what the block adds to it.

Deviations: k is held in [-60, 60], k + u in [-80, 80], and the two sums are kept as they are, where the authors' kernel carries
a running maximum; the shell's embedding, tied to the output and drawn with at most 2 / width (theirs: untied, within 1e-4), and
its last norm in place of theirs; one learning rate (theirs is
2 and 3 times as high for decay and u).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.law import Law
from models.layers import at_least_float32
from models.layers.rwkv import RWKVChannelMixing, embedding_spread, token_shift
from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.flops import diagonal_flops
from models.ops.flops import Flops
from models.registry import register

LARGEST = 60.0  # e^60 times any number of tokens is far below what float32 holds, and e^-60 far above nothing
LARGEST_NOW = 80.0  # of k + u, which no sum gathers
_FIRST_STEP = "behind a matrix that begins at 0 and has moved only after two steps"


class TimeMixing(nn.Module):
    """The first half of a block. State: the token before [b, d], num and den [b, d]."""

    no_weight_decay = ("mix_key", "mix_value", "mix_receptance", "decay", "bonus")

    def __init__(self, width: int, provider: str, index: int, depth: int):
        super().__init__()
        self.provider = provider
        place, late = torch.arange(width) / width, index / max(1, depth - 1)
        mix = place ** (1 - index / depth)
        self.mix_key, self.mix_value = nn.Parameter(mix), nn.Parameter(mix + 0.3 * late)
        self.mix_receptance = nn.Parameter(mix.sqrt())
        rank = torch.arange(width) / max(1, width - 1)
        self.decay = nn.Parameter(-5 + 8 * rank ** (0.7 + 1.3 * late))
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * ((torch.arange(width) + 1) % 3 - 1.0))
        self.key, self.value, self.receptance, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        nn.init.orthogonal_(self.value.weight)
        for part in (self.key, self.receptance, self.out):
            nn.init.zeros_(part.weight)

    def forward(self, x: Tensor, before: Tensor | None, num: Tensor | None, den: Tensor | None):
        """What is added to the stream [b, t, d], and the state after; x is normed."""
        last, before = token_shift(x, before)
        r = self.receptance(torch.lerp(last, x, self.mix_receptance)).sigmoid()
        k = at_least_float32(self.key(torch.lerp(last, x, self.mix_key))).clamp(-LARGEST, LARGEST)
        v = at_least_float32(self.value(torch.lerp(last, x, self.mix_value)))
        weight, keep = k.exp(), torch.exp(-at_least_float32(self.decay).exp())
        nums, num_after = diagonal_scan(keep, weight * v, num, provider=self.provider)
        dens, den_after = diagonal_scan(keep, weight, den, provider=self.provider)
        own = torch.exp((k + self.bonus).clamp(-LARGEST_NOW, LARGEST_NOW))
        mean = (token_shift(nums, num)[0] + own * v) / (token_shift(dens, den)[0] + own)
        return self.out(r * mean.to(r.dtype)), (before, num_after, den_after)


class ChannelMixing(RWKVChannelMixing):
    """The second half of a block. State: the token before [b, d]."""

    def __init__(self, width: int, inner: int, index: int, depth: int):
        mix = (torch.arange(width) / width) ** (1 - index / depth)
        super().__init__(width, inner, torch.stack([mix, mix]), gain=max(1, inner / width) ** 0.5)

    @staticmethod
    def mixed(x: Tensor, shifted: Tensor, share: Tensor) -> Tensor:
        """This version's shares are those of the tokens themselves."""
        return torch.lerp(shifted, x, share)


@register(
    "rwkv4",
    paper="Peng et al. 2023, arXiv 2305.13048",
    equation="num <- e^-w num + e^k v;  den <- e^-w den + e^k;  y = (num_{t-1} + e^(u+k) v) / (den_{t-1} + e^(u+k))",
)
class RWKV4(nn.Module):
    """The RWKV-4 block. State: the token before each half [b, d], num and den [b, d]."""

    law = Law(
        forget="e^-w, per channel, learned",
        compare="-",
        write="e^k v to num, e^k to den",
        read="(num + e^(u+k) v) / (den + e^(u+k))",
    )
    fixed_state = True
    norms_itself = True
    mixes_channels = True
    no_gradient: ClassVar = {
        "time.mix_key": _FIRST_STEP,
        "time.mix_receptance": _FIRST_STEP,
    }

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        provider: str = "auto",
        index: int = 0,
        depth: int = 1,
    ):
        """`inner` is the width of the channel mixing, 4 times the model's by default. `heads` is not used."""
        super().__init__()
        self.stream_norm = nn.LayerNorm(width) if index == 0 else None
        self.time_norm, self.time = nn.LayerNorm(width), TimeMixing(width, provider, index, depth)
        inner = 4 * width if inner is None else inner
        self.embedding_spread = embedding_spread(width)
        self.channel_norm, self.channels = nn.LayerNorm(width), ChannelMixing(width, inner, index, depth)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        *times, before = (None,) * 4 if state is None else state
        stream = x if self.stream_norm is None else self.stream_norm(x)
        heard, times = self.time(self.time_norm(stream), *times)
        mixed, before = self.channels(self.channel_norm(stream + heard), before)
        added = heard + mixed
        return (added if self.stream_norm is None else stream - x + added), (*times, before)

    def flops(self, time: int) -> Flops:
        """Of the two sums."""
        return diagonal_flops(time, 2 * len(self.time.decay))
