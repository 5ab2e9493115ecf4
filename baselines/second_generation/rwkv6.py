"""RWKV-6 (Finch): linear attention that forgets per key channel, and mixes each token with the one before it as it sees fit.

Peng et al. 2024, arXiv 2404.05892, in the form of the authors' code (BlinkDL/RWKV-LM, RWKV-v5/src/model.py, x060). With D the
token before x less x, per head:

    x_i = x + D (mu_i + tanh((x + D mu_x) A_i) B_i)         for i = w, k, v, r, g
    r, k, v = W_i x_i,   g = silu(W_g x_g),   log w = -exp(w_0 + tanh(x_w A) B)
    y_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t,   S_t = diag(w_t) S_{t-1} + k_t v_t^T,   att = W_o (norm_h(y) * g)
    ffn = sigmoid(W_r x_r) * W_v relu(W_k x_k)^2,   x_i = x + D mu_i,   3.5 times as wide as the model

A block is x + att(norm x), then the same with ffn, both norms with mean and bias; the first block norms the embedding before
that. The mixer is given the residual stream and returns what the block adds to it. The state is read before it is written, so
the scan is asked each token's successor's query; the token's own part, weighed by the bonus u, is added by hand.

Deviations: head width is `inner / heads` of the common size (the authors fix 64); embedding, its tied output and the last norm
are the shell's (theirs: untied, an embedding within 1e-4, LayerNorm). A model whose outputs are zero at first begins by repeating
its input, so the embedding is drawn normal with 0.02 or 2 / width, whichever is less, which leaves the first loss near
log(vocab). Below a width of 256 ranks are smaller, since theirs would hardly be low. Only the matrices of linear maps decay, as
with the authors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import at_least_float32, head_norm, split_heads
from models.layers.rwkv import RWKVChannelMixing, embedding_spread, token_shift
from models.ops.flops import Flops, product_flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register

EPSILON = 64e-5  # of the norm of heads: 1e-5 before the authors' division by 8
CLOSED = math.log(30.0)  # of the logarithm of -log w: a gate of e^-30 is closed
State = tuple[Tensor, Tensor, Tensor]


@register(
    "rwkv6",
    paper="Peng et al. 2024, arXiv 2404.05892",
    equation="S <- diag(w) S + k v^T;  y = (S_before + diag(u) k v^T)^T r,  w and the mixing of tokens from the input",
)
class RWKV6(nn.Module):
    """The RWKV-6 block. State: the last token before either half [b, width], and S [b, h, k, v] between."""

    law = Law(
        forget="w, per key channel, from x",
        compare="-",
        write="k v^T",
        read="(S_before + diag(u) k v^T)^T r",
    )
    period = 64  # no chunk of the chunked form is longer
    fixed_state = True
    norms_itself = True
    mixes_channels = True
    family_exception = (
        "decays depend on the input by a map of low rank that is zero at first, so they do once it has learned"
    )
    no_weight_decay = ("mix_first", "mix", "mix_down", "mix_up", "decay", "decay_down", "decay_up", "bonus")
    no_gradient = {
        "mixer.mix_first": "mix_down is zero at first",
        "mixer.mix_up": "mix_down is zero at first",
        "mixer.decay_up": "decay_down is zero at first",
    }

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        mix_rank: int | None = None,
        decay_rank: int | None = None,
        provider: str = "auto",
        index: int = 0,
        depth: int = 1,
    ):
        """`inner` is the width of time mixing over all heads, the model's by default.

        The ranks of A and B are 32 for mixing and 64 for the decay by default, but at most an eighth and a quarter of the width.
        """
        super().__init__()
        inner = width if inner is None else inner
        mix_rank = min(32, max(1, width // 8)) if mix_rank is None else mix_rank
        decay_rank = min(64, max(1, width // 4)) if decay_rank is None else decay_rank
        if inner % heads:
            raise ValueError(f"RWKV-6's inner width {inner} must be a multiple of its {heads} heads; change inner.")
        if min(mix_rank, decay_rank) < 1:
            raise ValueError(f"RWKV-6 needs mix_rank and decay_rank >= 1, not {mix_rank} and {decay_rank}.")
        self.heads, self.provider = heads, provider
        self.embedding_spread = embedding_spread(width)
        late, early = index / max(1, depth - 1), 1 - index / depth  # from 0 to 1, and from 1 to nearly 0
        self.norm_embedding = nn.LayerNorm(width) if index == 0 else None
        self.norm_time, self.norm_channels = nn.LayerNorm(width), nn.LayerNorm(width)
        place = torch.arange(width) / width
        self._learn_mixing(place, mix_rank, late, early)
        self._learn_decay(width, inner, decay_rank, late)
        self.key, self.value, self.query, self.gate = (nn.Linear(width, inner, bias=False) for _ in range(4))
        self.norm = nn.GroupNorm(heads, inner, eps=EPSILON)
        self.out = nn.Linear(inner, width, bias=False)
        for layer, gain in ((self.key, 0.1), (self.value, 1.0), (self.query, 1.0), (self.gate, 0.1)):
            nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.norm.weight, ((1 + index) / depth) ** 0.7)
        share = 1 - place ** (early**3)
        self.channels = RWKVChannelMixing(width, round(3.5 * width), torch.stack([share, share]))

    def _learn_mixing(self, place: Tensor, rank: int, late: float, early: float) -> None:
        """mu, A and B of the mixing of tokens, for channels at `place`, 0 to 1."""
        common, quick = 1 - place**early, 1 - place ** (early / 2)
        self.mix_first = nn.Parameter(common.clone())
        self.mix = nn.Parameter(torch.stack([common, common, common - 0.3 * late, quick, quick]))  # w, k, v, r, g
        self.mix_down = nn.Parameter(torch.zeros(len(place), 5 * rank))
        self.mix_up = nn.Parameter(torch.empty(5, rank, len(place)).uniform_(-0.01, 0.01))

    def _learn_decay(self, width: int, inner: int, rank: int, late: float) -> None:
        """w_0, A and B of the decay, and the bonus u."""
        place = torch.arange(inner) / max(1, inner - 1)
        self.decay = nn.Parameter(-6 + 5 * place ** (0.7 + 1.3 * late))
        self.decay_down = nn.Parameter(torch.zeros(width, rank))
        self.decay_up = nn.Parameter(torch.empty(rank, inner).uniform_(-0.01, 0.01))
        zigzag = 0.1 * ((torch.arange(inner) + 1) % 3 - 1)
        self.bonus = nn.Parameter((late * (1 - place) + zigzag).view(self.heads, -1))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        token, matrix, token_between = (None, None, None) if state is None else state
        given, x = x, x if self.norm_embedding is None else self.norm_embedding(x)
        y, token, matrix = self.mix_time(self.norm_time(x), token, matrix)
        z, token_between = self.channels(self.norm_channels(x + y), token_between)
        y = y + z if self.norm_embedding is None else x - given + y + z
        return y, (token, matrix, token_between)

    def mix_time(self, x: Tensor, token: Tensor | None, matrix: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Time mixing of normed x [b, t, width]: what it adds, the last token, and the last S."""
        shifted, token = token_shift(x, token)
        change = shifted - x
        own = torch.tanh((x + change * self.mix_first) @ self.mix_down).unflatten(-1, (5, -1))
        shares = self.mix + torch.einsum("btir,ird->btid", own, self.mix_up)
        xw, xk, xv, xr, xg = (x[:, :, None] + change[:, :, None] * shares).unbind(2)
        r, k, v = (split_heads(y, self.heads) for y in (self.query(xr), self.key(xk), self.value(xv)))
        decay = self.decay + at_least_float32(torch.tanh(xw @ self.decay_down) @ self.decay_up)
        y, matrix = self._read_before(r, k, v, split_heads(-decay.clamp(max=CLOSED).exp(), self.heads), matrix)
        y = head_norm(y, self.norm)
        return self.out(y * F.silu(self.gate(xg))), token, matrix

    def _read_before(
        self, r: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, matrix: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """y of the law and the last S: row t of the scan is asked the query of t + 1, and what came before the piece by hand."""
        later = torch.cat([r[:, 1:], torch.zeros_like(r[:, :1])], dim=1)
        read, after = scan(later, k, v, log_forget=log_forget, state=matrix, provider=self.provider)
        first = torch.zeros_like(v[:, :1])
        if matrix is not None:
            first = (matrix * r[:, 0, :, :, None]).sum(2)[:, None].to(v.dtype)
        bonus = (r * self.bonus * k).sum(-1, keepdim=True) * v
        return torch.cat([first, read[:, :-1]], dim=1) + bonus, after

    def flops(self, time: int) -> Flops:
        """Of the scan and the maps of low rank."""
        width, inner = self.out.weight.shape
        low = 2 * width * self.mix_down.shape[1] + self.decay_down.shape[1] * (width + inner)
        law = scan_flops(time, self.heads, inner // self.heads, inner // self.heads, per_channel=True)
        return law.plus(product_flops(time * low))
