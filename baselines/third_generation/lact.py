"""LaCT: test-time training in large chunks, beside attention over a window of one chunk.

Zhang et al. 2025, arXiv 2505.23884, in the form of the authors' layer for language (a1600012888/LaCT, lact_llm):

    out = W_o ( attention(R q, R k, v) + silu(w x) * norm_h(f(R q')) ),   q, k, v = W x,   R rotary positions
    q', k' = l2(silu(g * q + c)), l2(silu(g' * k + c')),   v' = silu(v)
    f(x) = (silu(x W_0) * (x W_2)) W_1 with the weights before x's chunk; behind every chunk of 64 (theirs 2,048) tokens
    G_i <- sum_s r_{i,s} d/dW_i (v'_s . f(R k'_s)) + mu G_i,   W_i <- W_i + G_i, each output's weights kept at their first length

r = softplus(W_r x + c) begins at 0.001, one for each token, head and matrix; mu is the chunk's mean of sigmoid(W_mu x). `muon`
orthogonalises G before it is added. Fast heads are four, or as many of these as divide the attention's heads. `rank` is that of
W_0 and W_2 at the beginning of a text, to which I / 2 is added (32 in their language models, whose fast heads are hundreds
wide); 0, as in the code's own default, learns them whole. Linear maps are normal with 0.006 and have zero biases, whole fast
weights are normal with their inputs' number^-1/2. The weights at the beginning of a text decay, vectors do not.

Deviations: the window is attention over `chunk` tokens, as theirs, so both shrink together; Muon computes in float32 (theirs in
bfloat16); theirs leaves a text's last chunk unlearned, here it is learned, since a text may go on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import window_attention
from models.law import Law
from models.layers import RMSNorm, at_least_float32, rotary, split_heads
from models.ops.fast_weights import fast_weights
from models.ops.fast_weights.flops import fast_weights_flops
from models.ops.flops import Flops, window_flops
from models.registry import register

BASE = 0.001  # the first rate
SPREAD = 0.006  # of linear maps


class FirstWeights(nn.Module):
    """A matrix [h, inputs, outputs] at the beginning of a text: learned whole, or as A B + I / 2 of a rank."""

    with_weight_decay = ("whole", "left", "right")

    def __init__(self, heads: int, inputs: int, outputs: int, rank: int = 0):
        super().__init__()
        self.whole = self.left = self.right = None
        if rank:
            self.left = nn.Parameter(torch.randn(heads, inputs, rank) * 0.5 * inputs**-0.5)
            self.right = nn.Parameter(torch.randn(heads, rank, outputs) * 0.5 * rank**-0.5)
        else:
            self.whole = nn.Parameter(torch.randn(heads, inputs, outputs) * inputs**-0.5)

    def forward(self) -> Tensor:
        if self.whole is not None:
            return self.whole
        half = torch.eye(self.left.shape[1], self.right.shape[2], dtype=self.left.dtype, device=self.left.device) / 2
        with torch.autocast(half.device.type, enabled=False):
            return self.left @ self.right + half


@register(
    "lact",
    paper="Zhang et al. 2025, arXiv 2505.23884",
    equation="y = attention over a window + f(q; W);  W <- W + sum_s r_s grad (v . f(k)) + mu G, chunk by chunk",
)
class LaCT(nn.Module):
    """The LaCT layer. State: the window's keys and values, the fast network's state, and the next place."""

    law = Law(
        forget="each output's weights, to their first length",
        compare="-",
        write="sum_s r_s grad (v . f(k)) + mu G, a chunk",
        read="f(q; W), and attention over a window",
    )
    fixed_state = True
    no_weight_decay = ("scale", "offset")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        chunk: int = 64,
        rank: int = 0,
        momentum: bool = True,
        muon: bool = False,
        provider: str = "auto",
    ):
        """`inner` is the width of q, k and v over all heads, the model's by default."""
        super().__init__()
        inner = width // (2 * heads) * 2 * heads if inner is None else inner
        if not inner or inner % (2 * heads):
            raise ValueError(f"LaCT needs an even head width, not {inner}/{heads}; change width, inner or heads.")
        if chunk < 1 or rank < 0:
            raise ValueError(f"LaCT needs chunk >= 1 and rank >= 0 (0 for none), not {chunk} and {rank}.")
        self.heads, self.fast_heads, self.chunk, self.period = heads, math.gcd(4, heads), chunk, chunk
        self.muon, self.provider, fast = muon, provider, inner // self.fast_heads
        self.qkv, self.out = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.scale, self.offset = nn.Parameter(torch.ones(2, inner)), nn.Parameter(torch.zeros(2, inner))
        self.rates, self.gate = nn.Linear(width, 3 * self.fast_heads), nn.Linear(width, self.fast_heads)
        self.momentum = nn.Linear(width, self.fast_heads) if momentum else None
        self.first = nn.ModuleList(FirstWeights(self.fast_heads, fast, fast, size) for size in (rank, 0, rank))
        self.norm = RMSNorm(fast)
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=SPREAD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        window, law, place = (None, None, 0) if state is None else state
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        turned = (rotary(split_heads(one, self.heads), place) for one in (q, k))
        y, window = window_attention(*turned, split_heads(v, self.heads), self.chunk, window)
        z, law = self._remember(x, q, k, v, law, place)
        return self.out(y.flatten(2) + z), (window, law, place + x.shape[1])

    def _remember(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, law: tuple | None, place: int
    ) -> tuple[Tensor, tuple]:
        """What the fast network answers, normed and gated, and its state."""
        q, k = (self._fast(one, self.scale[i], self.offset[i], place) for i, one in enumerate((q, k)))
        rates = F.softplus(at_least_float32(self.rates(x)) + math.log(math.expm1(BASE)))
        y, law = fast_weights(
            q,
            k,
            split_heads(F.silu(v), self.fast_heads),
            rates=split_heads(rates, self.fast_heads),
            momentum=None if self.momentum is None else at_least_float32(self.momentum(x)).sigmoid(),
            weights=tuple(first() for first in self.first),
            chunk=self.chunk,
            muon=self.muon,
            state=law,
            provider=self.provider,
        )
        return (self.norm(y.to(x.dtype)) * F.silu(self.gate(x))[..., None]).flatten(2), law

    def _fast(self, x: Tensor, scale: Tensor, offset: Tensor, place: int) -> Tensor:
        """A query or key of the fast network [b, t, fast heads, d], turned as the attention's heads turn."""
        x = at_least_float32(split_heads(F.silu(x * scale + offset), self.fast_heads))
        x = (x / (x.norm(dim=-1, keepdim=True) + 1e-5)).flatten(2)
        return split_heads(rotary(split_heads(x, self.heads), place).flatten(2), self.fast_heads)

    def flops(self, time: int) -> Flops:
        """Of attention in blocks and of the fast network."""
        width = self.out.in_features
        fast = width // self.fast_heads
        law = fast_weights_flops(time, self.fast_heads, fast, fast, self.chunk, self.muon)
        return law.plus(window_flops(time, self.chunk, width))
