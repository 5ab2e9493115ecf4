"""What all Titans share: the projections, short convolutions and gates in front of a neural memory, and its stable rates.

Per token and head (Titans, section 4.4; the ranges are ours, `docs/titans.md` says why):

    q, k, v = SiLU(conv(x W)), each of unit length
    eta   = 0.97 sigmoid(.)                    momentum
    theta = bound(b) sigmoid(.) (1 - eta)      rate: a write's whole weight, momentum included, stays below bound(b), and
                                               below less where a deep memory's learned weights have grown large
    alpha = sigmoid(.)                         forgetting, small at first and different from head to head

As in the camera-ready, each layer of a deep memory may have gates of its own (`layer_gates`), and each output channel an alpha
of its own (`forget="channel"`). With `store_every`, training keeps one state per so many tokens and computes the others again.
For ablations `momentum=False` is eta = 0, `forget="none"` is alpha = 0, and `convolution=False` takes q, k, v without one; what
would compute them is not there then.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import RMSNorm, ShortConvolution, at_least_float32, convolved_heads, maps
from models.layers.derived import Derived
from models.ops.dense import native as dense
from models.ops.dense import training
from models.ops.flops import Flops
from models.ops.neural_memory import deep_memory, linear_memory
from models.ops.neural_memory.activation_checkpointing import stored_every
from models.ops.neural_memory.flops import linear_memory_flops, memory_flops
from models.ops.neural_memory.recurrence import Weights, begin, network
from models.titans.memory_settings import MemorySettings

MOMENTUM_BOUND = 0.97
SHARPER = (
    4  # weights grown to twice the drawn; beyond three times, equal tokens have driven memories to infinity (measured)
)
FORGET_LOGITS = (-3.0, -6.0)  # of the first and the last head: a memory of about 20 tokens, and of 400

MemoryState = tuple[Tensor, Tensor, Any]


def rate_bound(chunk: int, depth: int) -> float:
    """The largest rate, before the factor `1 - eta`, at which gradients up to `chunk` tokens old keep a memory bounded.

    Keys have unit length, so equal ones move the memory along a direction by at most `chunk * rate` per anchor, which must stay
    below 2. Up to 0.25, correlated keys do not resonate with a momentum of 0.97 (measured). Layers share the bound.
    """
    return min(0.25, 1.5 / chunk) / depth


def sharpness(weights: Weights) -> Tensor:
    """How strongly a deep memory answers a step of rate 1 along a key's gradient, per head [h]; the activation left out.

    Layer l adds the squared length of its input, `prod_{j<l} |W_j|^2 / in_j`, times that of what comes back to it,
    `prod_{j>l} |W_j|^2 / out_j`: the lengths that random keys and errors would have. Weights [h, in, out].
    """
    squares = [weight.square().sum((-2, -1)) for weight in weights]
    total = torch.zeros_like(squares[0])
    for layer in range(len(weights)):
        part = torch.ones_like(total)
        for other, (square, weight) in enumerate(zip(squares, weights, strict=True)):
            if other != layer:
                part = part * square / weight.shape[-2 if other < layer else -1]
        total = total + part
    return total


def inner_width(width: int, heads: int, inner: int | None) -> int:
    """The memory's width over all heads. Raises ValueError unless heads share it evenly."""
    inner = width if inner is None else inner
    if inner < heads or inner % heads:
        raise ValueError(f"An inner width of {inner} cannot be shared by {heads} heads; make it a multiple of {heads}.")
    return inner


class Memory(nn.Module):
    """A neural memory with its projections: x [b, t, width] -> what each token reads, [b, t, heads, inner / heads].

    State: the convolutions' last inputs and the operation's own state.
    """

    with_weight_decay = ("initial",)  # the paper is silent; TTT's code, the nearest that is published, decays its W_0

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        settings: MemorySettings,
        provider: str,
    ):
        super().__init__()
        self.heads, self.rule, self.unit_values, self.provider = heads, settings.rule, settings.unit_values, provider
        self.store_every, depth, forget = settings.store_every, settings.memory_depth, settings.forget
        bound = settings.rate_bound
        self._held = Derived()
        self.bound = rate_bound(settings.chunk, depth) if bound is None else bound
        plain = depth == 1 and not settings.residual and forget != "channel"
        self.operation = linear_memory if plain else deep_memory
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.query_conv = convolution_of(inner, settings.convolution, provider)
        self.key_value_conv = convolution_of(2 * inner, settings.convolution, provider)
        head = inner // heads
        sizes = [head, *[settings.expansion * head] * (depth - 1), head]
        layers = depth if settings.layer_gates else 1
        forgets = {"head": layers, "channel": sum(sizes[1:]), "none": 0}
        # Per head: of momentum, rate, forgetting.
        self.gate_sizes = [layers if settings.momentum else 0, layers, forgets[forget]]
        self.gates = nn.Linear(width, heads * sum(self.gate_sizes))
        self.initial = nn.ParameterList(torch.empty(heads, *pair) for pair in zip(sizes, sizes[1:], strict=False))
        self._initialise(width)

    def _initialise(self, width: int) -> None:
        for projection in (self.query, self.key_value):
            nn.init.normal_(projection.weight, std=width**-0.5)
        nn.init.normal_(self.gates.weight, std=0.02)
        with torch.no_grad():
            self.gates.bias.zero_()
            forget = self.gates.bias[self.heads * sum(self.gate_sizes[:2]) :].view(self.heads, self.gate_sizes[2])
            forget.copy_(torch.linspace(*FORGET_LOGITS, self.heads)[:, None].expand_as(forget))
        # Unit keys give hidden units of about unit length; a small last layer lets what is written outweigh what is drawn.
        for weight, std in zip(self.initial, self._spreads(), strict=True):
            nn.init.normal_(weight, std=std)

    def _spreads(self) -> list[float]:
        """The standard deviations that the learned weights are drawn with."""
        hidden = [2 * weight.shape[2] ** -0.5 for weight in self.initial[:-1]]
        return [*hidden, 0.1 * self.initial[-1].shape[1] ** -0.5]

    def _bound(self) -> Tensor | float:
        """The largest rate, [h]: less than `bound` where the learned weights have grown so large that it would not hold.

        `rate_bound` counts on hidden layers about as long as they are drawn. Up to SHARPER times their sharpness it does hold.
        """
        if len(self.initial) == 1:
            return self.bound
        return self._held(self._bound_now, *self.initial)

    def _bound_now(self, *initial: Tensor) -> Tensor:
        drawn = sharpness(tuple(torch.full_like(w[:1], s) for w, s in zip(initial, self._spreads(), strict=True)))
        return self.bound * (SHARPER * drawn / sharpness(initial)).clamp_max(1)

    def queries(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Unit queries [b, t, h, d] and the convolution's state."""
        return self._unit_queries(self.query(x), past)

    def _unit_queries(self, q: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        (q,), past = convolved_heads(self.query_conv, q, past, [q.shape[-1]], self.heads, unit=1)
        return q, past

    def forward(self, x: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        query_past, key_value_past, memory = (None, None, None) if state is None else state
        q, key_value, logits = maps(x, self.query, self.key_value, self.gates, provider=self.provider)
        q, query_past = self._unit_queries(q, query_past)
        widths, unit = [key_value.shape[-1] // 2] * 2, 2 if self.unit_values else 1
        (k, v), key_value_past = convolved_heads(
            self.key_value_conv, key_value, key_value_past, widths, self.heads, unit
        )
        logits = at_least_float32(logits)  # bfloat16 has no numbers between 0.996 and 1
        parts = logits.split([self.heads * size for size in self.gate_sizes], dim=-1)
        momentum, rate, forget = (
            part if size == 1 else part.unflatten(-1, (self.heads, size))
            for part, size in zip(parts, self.gate_sizes, strict=True)
        )
        rate = rate.sigmoid()
        momentum = MOMENTUM_BOUND * momentum.sigmoid() if self.gate_sizes[0] else torch.zeros_like(rate)
        form = self.operation.form(self.provider)
        y, memory = (form if self.store_every is None else stored_every(self.store_every, form))(
            q,
            k,
            v,
            momentum=momentum,
            rate=self._rate(rate) * (1 - momentum),
            keep=torch.sigmoid(-forget) if self.gate_sizes[2] else torch.ones_like(rate),
            initial=tuple(self.initial),
            rule=self.rule,
            state=memory,
        )
        return y, (query_past, key_value_past, memory)

    def _rate(self, share: Tensor) -> Tensor:
        """Rates from their shares of the bound, [b, t, h] or [b, t, h, layers]."""
        bound = self._bound()
        return share * (bound if isinstance(bound, float) else bound.view(-1, *[1] * (share.dim() - 3)).to(share.dtype))

    def flops(self, time: int) -> Flops:
        """Of the recurrence; the few persistent tokens that some variants put before a text are left out."""
        widths = [self.initial[0].shape[1], *(weight.shape[2] for weight in self.initial)]
        if self.operation is linear_memory:
            return linear_memory_flops(time, self.rule.chunk, self.heads, *widths)
        return memory_flops(time, self.rule.chunk, self.heads, widths)

    def weights(self, state: MemoryState | None, batch: int) -> Weights:
        """The memory's weights [b, h, in, out] at its last anchor."""
        return begin(tuple(self.initial), batch)[0] if state is None else state[2][0]

    def retrieve(self, weights: Weights, q: Tensor) -> Tensor:
        """What fixed weights answer to queries [b, t, h, d], without being written to."""
        on = q.device.type
        with torch.autocast(on, enabled=False) if torch.is_autocast_enabled(on) else nullcontext():
            return network(weights, q.transpose(1, 2).to(weights[0].dtype), self.rule).transpose(1, 2).to(q.dtype)


class HeadNorm(RMSNorm):
    """RMSNorm of each head with one gain over all channels: [b, t, h, d] -> [b, t, h * d]."""

    no_weight_decay = ("gain",)

    def __init__(self, heads: int, width: int, provider: str = "auto"):
        super().__init__(width // heads, weight=False, provider=provider)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if dense.is_short(x, self.provider) and self.gain.dtype is x.dtype:
            return dense.rms_norm(x, self.gain, self.eps).flatten(2)
        if (found := training.rms_norm(x, self.gain, self.eps, self.provider)) is not None:
            return found.flatten(2)
        return super().forward(x).flatten(2) * self.gain


class Gating(nn.Module):
    """Two branches of one token joined, `RMSNorm_a(y) * sigma(RMSNorm_b(m))`: the paper's circled times (section 4.2)."""

    def __init__(self, width: int, provider: str = "auto"):
        super().__init__()
        self.kept, self.gate = (RMSNorm(width, provider=provider) for _ in range(2))

    def forward(self, y: Tensor, m: Tensor) -> Tensor:
        return self.kept(y) * self.gate(m).sigmoid()


class NoConvolution(nn.Module):
    """What stands in the place of a short convolution that is switched off: x as it is, and an empty state."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x[:, :0].clone()


def convolution_of(width: int, wanted: bool, provider: str = "auto") -> ShortConvolution | NoConvolution:
    """The short convolution of so many channels, or nothing in its place."""
    return ShortConvolution(width, provider=provider) if wanted else NoConvolution()


def persistent_tokens(count: int, width: int) -> nn.Parameter | nn.Buffer:
    """The learned tokens [count, width] that stand before every text (eq. 19); of none there is nothing to learn.

    Raises ValueError for fewer than none.
    """
    if count < 0:
        raise ValueError(f"persistent must be a number of tokens from 0 up, not {count}.")
    return nn.Parameter(torch.randn(count, width)) if count else nn.Buffer(torch.zeros(0, width), persistent=False)


def output_projection(inner: int, width: int) -> nn.Linear:
    """The projection back to the residual stream, half as large as unit variance would have it."""
    projection = nn.Linear(inner, width, bias=False)
    nn.init.normal_(projection.weight, std=0.5 / math.sqrt(inner))
    return projection
