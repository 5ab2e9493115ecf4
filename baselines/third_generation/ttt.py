"""TTT-Linear and TTT-MLP: the state is a small network that is trained on the text while it is read.

Sun et al. 2024, arXiv 2407.04620, Sections 2.3 to 2.7, in the form of the published JAX code's layer for the Mamba backbone,
with the settings of its published configurations:

    u = x + conv(RMSNorm(x)),   block = u + TTT(RMSNorm(u))       before the layer itself

    f(x) = x + LN(z(x)),   z affine (linear), or affine - GELU - affine with a hidden layer four times as wide (MLP)
    g_j = grad 1/2 || f(k_j; W) - v_j ||^2 at the weights W that begin a mini-batch of 16 tokens
    y_i = f(q_i; W - p_i sum_{j<=i} r_j g_j),   r_j = base * sigmoid(w x_j + c) / d,   p_i = max(0, 1/i + learned)
    out = W_o ( LN(y over all heads) * gelu(W_g x) )

q and k are two short convolutions, without activation, of one projection, then turned by their place in the mini-batch. W
at the beginning of a text, LN's scale and bias and p are learned. `convolution=0` is the layer of the Transformer backbone:
three projections, no convolution, no gate. The convolution before the layer (`pre_conv`, on in every published configuration of
both) reads the residual stream as it is, so the layer brings both norms and the shell adds none; `pre_convolution=0` leaves it
out. TTT-MLP's base rate rises from 0.01 to 0.1 over the warm-up of the training, as in the published scripts. Weights are normal
with 0.02, convolutions' truncated normal of variance 1 / kernel (flax's default), biases 0.

Deviation: the authors decay every parameter. Here norms, biases and p are left alone, as in every model of this benchmark;
W at the beginning of a text decays, as theirs does.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, split_heads
from models.ops.flops import Flops
from models.ops.ttt import test_time_training
from models.ops.ttt.flops import test_time_training_flops
from models.ops.ttt.recurrence import EPSILON, State, Weights
from models.registry import register

# Standard deviation of a unit normal cut at two, for which flax's draws make up.
CUT_SPREAD = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))

Tails = tuple[
    Tensor | tuple, Tensor | tuple
]  # last inputs of the convolution before the layer and of those for q and k


class TTT(nn.Module):
    """The layer around the recurrence. State: the convolutions' last inputs; W and sum r g of every head, and the place.

    `inner` is the width of q, k and v over all heads, the model's by default; `expansions` are the widths of the inner
    network's hidden layers over the head width. In a training the base rate begins at `first_rate`, if there is one.
    """

    law = Law(
        forget="-",
        compare="f(k_j) - v_j",
        write="-p_i sum_j r_j grad 1/2 |f(k_j) - v_j|^2",
        read="f(q)",
    )
    fixed_state = True
    no_weight_decay = ("place_factor", "biases", "scale", "shift")
    with_weight_decay = ("weights",)

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None,
        mini_batch: int,
        base_rate: float,
        convolution: int,
        pre_convolution: int,
        provider: str,
        expansions: tuple[int, ...] = (),
        first_rate: float | None = None,
    ):
        super().__init__()
        inner = width // heads * heads if inner is None else inner
        channels = inner // heads
        if channels < 2 or channels % 2 or inner % heads:
            raise ValueError(f"TTT needs an even head width, not {inner}/{heads}; change width, inner or heads.")
        if mini_batch < 1 or min(convolution, pre_convolution) < 0 or base_rate <= 0:
            raise ValueError(
                "TTT needs mini_batch >= 1, base_rate > 0, convolution and pre_convolution >= 0 (0 for none)."
            )
        if first_rate is not None and first_rate <= 0:
            raise ValueError(f"TTT needs first_rate > 0, or None for no warm-up of the inner rate, not {first_rate}.")
        self.heads, self.provider, self.period = heads, provider, mini_batch
        self.base_rate, self.channels = base_rate, channels
        self.first_share, self.rate_share = 1.0 if first_rate is None else first_rate / base_rate, 1.0
        self.norms_itself = bool(pre_convolution)
        self.pre_norm, self.input_norm = (RMSNorm(width) if pre_convolution else None for _ in range(2))
        self.pre_convolution = (
            ShortConvolution(width, pre_convolution, bias=True, provider=provider) if pre_convolution else None
        )
        shared = bool(convolution)
        self.project = nn.Linear(width, (2 if shared else 3) * inner, bias=False)
        self.convolution_q, self.convolution_k = (
            ShortConvolution(inner, convolution, bias=True, provider=provider) if shared else None for _ in "qk"
        )
        self.gate = nn.Linear(width, inner, bias=False) if shared else None
        self.rate = nn.Linear(width, heads)
        self.place_factor = nn.Parameter(torch.zeros(mini_batch))
        widths = [channels, *(factor * channels for factor in expansions), channels]
        pairs = list(zip(widths, widths[1:], strict=False))
        self.weights = nn.ParameterList(torch.randn(heads, given, made) * 0.02 for given, made in pairs)
        self.biases = nn.ParameterList(torch.zeros(heads, 1, made) for _, made in pairs)
        self.scale = nn.Parameter(torch.ones(heads, channels))
        self.shift = nn.Parameter(torch.zeros(heads, channels))
        self.norm = nn.LayerNorm(inner, eps=EPSILON)
        self.out = nn.Linear(inner, width, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for layer in (self.project, self.gate, self.rate, self.out):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.rate.bias)
        for convolution in (self.pre_convolution, self.convolution_q, self.convolution_k):
            if convolution is not None:
                std = convolution.kernel**-0.5 / CUT_SPREAD
                nn.init.trunc_normal_(convolution.weight, std=std, a=-2 * std, b=2 * std)
                nn.init.zeros_(convolution.bias)

    def warm_up(self, share: float) -> None:
        """Bring the base rate from its first value as near to its last as `share`, 0 to 1, of a training's warm-up is done."""
        self.rate_share = self.first_share + share * (1 - self.first_share)

    def forward(self, x: Tensor, state: tuple[Tails, State] | None = None) -> tuple[Tensor, tuple[Tails, State]]:
        (pre_tail, tail), law = ((None, None), None) if state is None else state
        x, added, pre_tail = self._enter(x, pre_tail)
        q, k, v, tail = self._queries_keys_values(x, tail)
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        q, k, v = (split_heads(part, self.heads).to(kind) for part in (q, k, v))
        turn = rotation(self.channels, self.period, 0 if law is None else law[2], x.shape[1], q)
        y, law = test_time_training(
            turned(q, turn),
            turned(k, turn),
            v,
            rate=self.rate_share * self.base_rate / self.channels * self.rate(x).to(kind).sigmoid(),
            factor=self.factor().to(kind),
            weights=self.first_weights(kind),
            provider=self.provider,
            norm=(self.scale.to(kind), self.shift.to(kind)),
            state=law,
        )
        y = self.norm(y.flatten(2).to(x.dtype))
        if self.gate is not None:
            y = y * F.gelu(self.gate(x), approximate="tanh")
        y = self.out(y)
        return y if added is None else added + y, ((pre_tail, tail), law)

    def _enter(self, x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | tuple]:
        """What the layer reads, what the convolution before it adds to the residual stream, and its last inputs."""
        if self.pre_convolution is None:
            return x, None, ()
        added, tail = self.pre_convolution(self.pre_norm(x), tail)
        return self.input_norm(x + added), added, tail

    def _queries_keys_values(self, x: Tensor, tail) -> tuple[Tensor, Tensor, Tensor, Tensor | tuple]:
        if self.gate is None:
            return *self.project(x).chunk(3, dim=-1), ()
        qk, v = self.project(x).chunk(2, dim=-1)
        q, after = self.convolution_q(qk, tail)
        k, _ = self.convolution_k(qk, tail)  # both convolve the same inputs: one tail serves
        return q, k, v, after

    def factor(self) -> Tensor:
        """p [c]: how far the token at each place of a mini-batch follows the sum of gradients, 1/i at first."""
        place = torch.arange(1, self.period + 1).to(self.place_factor)  # in its dtype: thirds are no float32 in float64
        return (1 / place + self.place_factor).clamp(min=0)

    def flops(self, time: int) -> Flops:
        """Of the recurrence."""
        widths = [self.channels, *(weight.shape[2] for weight in self.weights)]
        return test_time_training_flops(time, self.period, self.heads, widths)

    def first_weights(self, kind: torch.dtype) -> Weights:
        """The inner network at the beginning of a text: one [h, in + 1, out] per layer, the bias as its last row."""
        return tuple(torch.cat(pair, dim=1).to(kind) for pair in zip(self.weights, self.biases, strict=True))


def rotation(channels: int, period: int, start: int, time: int, like: Tensor) -> Tensor:
    """Unit complex numbers [t, 1, d / 2] that turn tokens by their place in a mini-batch: `exp(i place 10000^(-2 j / d))`."""
    frequency = 10000.0 ** (-torch.arange(channels // 2, device=like.device, dtype=torch.float64) * 2 / channels)
    place = (start + torch.arange(time, device=like.device)) % period
    angle = torch.outer(torch.arange(period, device=like.device), frequency)
    table = torch.polar(torch.ones_like(angle), angle)
    return table.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)[place, None]


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions on neighbouring pairs (x_{2j}, x_{2j+1}) of x [b, t, h, d]."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2)


@register(
    "ttt-linear",
    paper="Sun et al. 2024, arXiv 2407.04620",
    equation="W <- W - p_i sum_j r_j grad 1/2 ||f(k_j) - v_j||^2;  y = f(q);  f(x) = x + LN(W x + b)",
)
class TTTLinear(TTT):
    """TTT with an affine inner network."""

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        mini_batch: int = 16,
        base_rate: float = 1.0,
        convolution: int = 4,
        pre_convolution: int = 4,
        provider: str = "auto",
    ):
        super().__init__(width, heads, inner, mini_batch, base_rate, convolution, pre_convolution, provider)


@register(
    "ttt-mlp",
    paper="Sun et al. 2024, arXiv 2407.04620",
    equation="W <- W - p_i sum_j r_j grad 1/2 ||f(k_j) - v_j||^2;  y = f(q);  f(x) = x + LN(W_2 gelu(W_1 x))",
)
class TTTMLP(TTT):
    """TTT with an inner network of two layers, the hidden one `expansion` times as wide."""

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        mini_batch: int = 16,
        base_rate: float = 0.1,
        convolution: int = 4,
        pre_convolution: int = 4,
        expansion: int = 4,
        first_rate: float | None = 0.01,
        provider: str = "auto",
    ):
        widths = (expansion,)
        super().__init__(
            width, heads, inner, mini_batch, base_rate, convolution, pre_convolution, provider, widths, first_rate
        )
