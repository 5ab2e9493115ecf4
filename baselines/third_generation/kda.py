"""Kimi Delta Attention and Gated DeltaNet-2: the gated delta rule with forgetting per key channel.

Kimi team 2025, arXiv 2510.26692, as released in flash-linear-attention (0.6.0) and transformers (5.24.0):

    S <- diag(a) S,   S <- S + b k (v - S^T k)^T,   y = S^T q
    a = exp(-exp(A_log) softplus(W_2 W_1 x + bias)), b = sigmoid(W_b x);   out = W_o ( norm_h(y) * sigmoid(W_4 W_3 x + c) )

A_log and b are one number a head, the bias one a channel; q, k = l2(silu(conv(W x))), v = silu(conv(W_v x)), all as wide as the
model, q scaled by d_k^-1/2; both low-rank maps go through the width of a head. The norm of a head has one gain for all heads.

Hatamizadeh, Choi, Kautz 2026, arXiv 2605.22791, by flash-linear-attention's layer: two gates per channel in the place of b,

    S <- diag(a) S,   S <- S + k (w * v - S^T (e * k))^T,   e = sigmoid(W_e x), w = sigmoid(W_w x)

and all else as above; e = w = b would be Kimi Delta Attention.

Linear maps are drawn normal with 0.02 and biases are 0, as both models' releases have it. `negative_eigenvalues` doubles b or e
(Grazzi et al. 2024, arXiv 2411.12537); `lower_bound` l gives gates a = exp(l sigmoid(exp(A_log) (W_2 W_1 x + bias))), with A_log
0 at first as in the library, so that no channel's gate is pushed to its end from the start.

Deviations: the models of Kimi Linear have one layer of full attention to three of these, here all layers are alike; heads are
the model's, not of width 128; convolutions stay as `nn.Conv1d` draws them. The code of Gated DeltaNet-2's authors was not read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, at_least_float32, convolved_heads, split_heads, step_bias
from models.ops.erase_and_write import erase_and_write
from models.ops.erase_and_write.flops import erase_and_write_flops
from models.ops.flops import Flops
from models.registry import register

State = tuple[Tensor, Tensor]


class ChannelGated(nn.Module):
    """Projections, convolution, gates per channel and output of both layers; `erased_and_written` is each one's own.

    State: the convolution's last inputs and S [b, h, k, v].
    """

    period = 64
    fixed_state = True
    no_weight_decay = ("A_log", "step_bias")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None,
        kernel: int,
        negative_eigenvalues: bool,
        lower_bound: float | None,
        provider: str,
    ):
        super().__init__()
        inner = width if inner is None else inner
        if inner % heads:
            raise ValueError(f"The inner width {inner} must be a multiple of the {heads} heads; change inner or heads.")
        if lower_bound is not None and lower_bound >= 0:
            raise ValueError(
                f"lower_bound is that of a gate's logarithm and must be below 0 (or None), not {lower_bound}."
            )
        self.heads, self.provider, self.lower_bound = heads, provider, lower_bound
        self.highest_rate = 2.0 if negative_eigenvalues else 1.0
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.convolution = ShortConvolution(3 * inner, kernel, provider=provider)
        rank = inner // heads
        self.step = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, inner, bias=False))
        speeds = torch.empty(heads).uniform_(1, 16).log()  # drawn in any case: what is drawn after it stays as it is
        self.A_log = nn.Parameter(speeds if lower_bound is None else torch.zeros(heads))
        self.step_bias = nn.Parameter(step_bias(inner))
        self.gate = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, inner))
        self.norm = RMSNorm(rank, eps=1e-5)
        self.out = nn.Linear(inner, width, bias=False)

    def _initialise(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        tail, matrix = (None, None) if state is None else state
        qkv = self.qkv(x)
        widths = [qkv.shape[-1] // 3] * 3
        scale = (widths[0] // self.heads) ** -0.5
        (q, k, v), tail = convolved_heads(self.convolution, qkv, tail, widths, self.heads, 2, scale)
        compare, write, v = self.erased_and_written(x, k, v)
        y, matrix = erase_and_write(
            q, compare, write, v, log_forget=self.log_forget(x), state=matrix, provider=self.provider
        )
        y = self.norm(y).flatten(2) * self.gate(x).sigmoid()
        return self.out(y), (tail, matrix)

    def log_forget(self, x: Tensor) -> Tensor:
        """Logarithms of the gates [b, t, h, k]."""
        step = split_heads(at_least_float32(self.step(x)) + self.step_bias, self.heads)
        speed = self.A_log.exp()[:, None]
        return -speed * F.softplus(step) if self.lower_bound is None else self.lower_bound * (speed * step).sigmoid()

    def erased_and_written(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The key that is compared, the key that writes, and what is written, [b, t, h, ..]."""
        raise NotImplementedError

    def flops(self, time: int) -> Flops:
        """Of the recurrence."""
        width = self.out.in_features // self.heads
        return erase_and_write_flops(time, self.heads, width, width)


@register(
    "kda",
    paper="Kimi team 2025, arXiv 2510.26692",
    equation="S <- diag(a) S;  S <- S + b k (v - S^T k)^T;  y = S^T q",
)
class KimiDeltaAttention(ChannelGated):
    """The Kimi Delta Attention layer."""

    law = Law(
        forget="a, per key channel, from x",
        compare="S^T k",
        write="b k (v - S^T k)^T",
        read="S^T q",
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        negative_eigenvalues: bool = False,
        lower_bound: float | None = None,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        super().__init__(width, heads, inner, kernel, negative_eigenvalues, lower_bound, provider)
        self.rate = nn.Linear(width, heads, bias=False)
        self._initialise()

    def erased_and_written(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate = self.highest_rate * at_least_float32(self.rate(x)).sigmoid()
        return k, k * rate[..., None], v


@register(
    "gated-deltanet-2",
    paper="Hatamizadeh, Choi and Kautz 2026, arXiv 2605.22791",
    equation="S <- diag(a) S;  S <- S + k (w * v - S^T (e * k))^T;  y = S^T q",
)
class GatedDeltaNet2(ChannelGated):
    """The Gated DeltaNet-2 layer."""

    law = Law(
        forget="a, per key channel, from x",
        compare="S^T (e * k)",
        write="k (w * v - S^T (e * k))^T",
        read="S^T q",
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        negative_eigenvalues: bool = False,
        lower_bound: float | None = None,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        super().__init__(width, heads, inner, kernel, negative_eigenvalues, lower_bound, provider)
        inner = self.out.in_features
        self.erase, self.write = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self._initialise()

    def erased_and_written(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        erase, write = (split_heads(gate(x).sigmoid(), self.heads) for gate in (self.erase, self.write))
        return self.highest_rate * erase * k, k, write * v
