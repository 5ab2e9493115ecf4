"""Based: Taylor linear attention with small heads for the whole past, windows and short convolutions for what is near.

Arora et al. 2024, arXiv 2402.18668, as the authors' code (HazyResearch/based) has it; one mixer of three in each layer:

    linear   w_ts = 1 + s + s^2 / 2,  s = q_t . k_s / sqrt(f);    y_t = W_o sum_{s<=t} w_ts v_s / (sum_{s<=t} w_ts + 1e-12)
    window   y_t = W_o softmax( R(q_t) R(k_s)^T / sqrt(d) ) v_s  over the last `window` tokens,  R rotary positions
    conv     [u | g] = W_in x + b,   y = W_out ( silu(conv(u)) * g ) + c,  u and g [2 width], kernel 3

q and k of a linear layer have f = `feature` numbers a head, v has width / heads; its weights are products of the features
[1, q, q (x) q / sqrt 2], of which (f + 1)(f + 2) / 2 are distinct, so that its state is a sum of that many rows. No biases
but the convolution's two, no positions outside the windows. `pattern` repeats through the depth: the published 27 and 36
layers are conv, linear, window, conv, conv. Weights are drawn N(0, 2 / (5 width)), output maps with that deviation over
sqrt(2 depth).

Deviations: f is 8 and the window 32 tokens, its own with them, for models of width 64 and hundreds of tokens (theirs 16 and
64); the embedding and the SwiGLU, of the solved width, are drawn as the shell draws them. A size of fewer than three layers,
which would leave attention out, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import window_attention
from models.law import Law
from models.layers import ShortConvolution, rotary, split_heads
from models.ops.flops import Flops, window_flops
from models.ops.kernel_attention import kernel_attention
from models.ops.kernel_attention.flops import kernel_attention_flops
from models.registry import register
from models.shell.model import Block, LanguageModel, Size
from schema.settings import parameters

EPSILON = 1e-12  # beside the sum of weights, which is at least 1/2 a token


class TaylorAttention(nn.Module):
    """Linear attention by the softmax's second-order Taylor series. State: the mean of phi(k) [v | 1] [b, h, features, d + 1]."""

    period = 64  # the chunk of the chunked form

    def __init__(self, width: int, heads: int, feature: int, provider: str):
        super().__init__()
        self.heads, self.feature, self.provider = heads, feature, provider
        self.query_key = nn.Linear(width, 2 * heads * feature, bias=False)
        self.value, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, int] | None) -> tuple[Tensor, tuple[Tensor, int]]:
        q, k = (split_heads(part, self.heads) for part in self.query_key(x).chunk(2, dim=-1))
        v, q = split_heads(self.value(x), self.heads), q * self.feature**-0.5
        y, state = kernel_attention(q, k, v, kernel="taylor", plus=EPSILON, state=state, provider=self.provider)
        return self.out(y.flatten(2)), state

    def flops(self, time: int) -> Flops:
        """Of the sums."""
        values = self.out.in_features // self.heads
        return kernel_attention_flops(time, self.heads, self.feature, values, "taylor")


class SlidingWindow(nn.Module):
    """Softmax attention with rotary positions. State: the last `window - 1` keys and values [b, n, h, d], and the next place."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window, self.period = heads, window, window
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor, int] | None) -> tuple[Tensor, tuple]:
        past, start = (None, 0) if state is None else (state[:2], state[2])
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        y, past = window_attention(rotary(q, start), rotary(k, start), v, self.window, past)
        return self.out(y.flatten(2)), (*past, start + x.shape[1])

    def flops(self, time: int) -> Flops:
        """Of attention in blocks."""
        return window_flops(time, self.window, self.out.in_features)


class GatedConvolution(nn.Module):
    """BaseConv: a short convolution, gated. State: its last inputs [b, kernel - 1, 2 width]."""

    def __init__(self, width: int, kernel: int, provider: str):
        super().__init__()
        self.project, self.out = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.convolution = ShortConvolution(2 * width, kernel, provider=provider)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        mixed, gate = self.project(x).chunk(2, dim=-1)
        mixed, state = self.convolution(mixed, state)
        return self.out(F.silu(mixed) * gate), state

    def flops(self, time: int) -> Flops:
        """Nothing beside its maps and its convolution."""
        return Flops(0.0, 0.0)


@register(
    "based",
    paper="Arora et al. 2024, arXiv 2402.18668",
    equation="y = sum w_ts v_s / sum w_ts,  w_ts = 1 + s + s^2 / 2,  s = q_t . k_s / sqrt(f);  windows; gated convolutions",
)
class Based(LanguageModel):
    """Convolutions, Taylor linear attention and windows in turn. State: a tuple of the layers' own."""

    fixed_state = True
    state_setting = "feature"
    law = Law(forget="-", compare="-", write="phi(k) [v | 1]^T", read="S^T phi(q) / (z . phi(q)), phi Taylor's of exp")

    def __init__(
        self,
        size: Size,
        feed: int,
        pattern: str = "conv,linear,window,conv,conv",
        feature: int = 8,
        window: int = 32,
        kernel: int = 3,
        provider: str = "auto",
    ):
        """`feature` is the width of a query or key of linear attention, `kernel` that of the convolutions."""
        names = _kinds(pattern)
        if not set(names) <= {"conv", "linear", "window"}:
            raise ValueError(f"Based's pattern is made of conv, linear and window, parted by commas, not '{pattern}'.")
        if min(feature, window, kernel) < 1:
            raise ValueError(
                f"Based needs feature, window and kernel of at least 1, not {feature}, {window}, {kernel}."
            )
        least = _least_depth(names)
        if size.depth < least:
            raise ValueError(
                f"Based's layers ({', '.join(names[:least])}, ...) do not fit into a depth of {size.depth}: give the size a "
                f"depth of {least} or more, or a shorter pattern."
            )
        built = {
            "conv": lambda: GatedConvolution(size.width, kernel, provider),
            "linear": lambda: TaylorAttention(size.width, size.heads, feature, provider),
            "window": lambda: SlidingWindow(size.width, size.heads, window),
        }
        mixers = [built[names[index % len(names)]]() for index in range(size.depth)]
        super().__init__(size, [Block(size.width, mixer, feed) for mixer in mixers])
        for mixer in mixers:
            self._draw(mixer, (0.4 / size.width) ** 0.5)

    @classmethod
    def declares(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A model without its attention layers, which come after a convolution, would be another."""
        return {"least_depth": _least_depth(_kinds(settings.get("pattern", parameters(cls)["pattern"].default)))}

    def _draw(self, mixer: nn.Module, deviation: float) -> None:
        """The authors' first weights of a mixer's maps; the convolution keeps its own."""
        for name, layer in mixer.named_children():
            if isinstance(layer, nn.Linear):
                shrunk = (2 * self.size.depth) ** -0.5 if name == "out" else 1.0
                nn.init.normal_(layer.weight, std=deviation * shrunk)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def _kinds(pattern: str) -> list[str]:
    return [name.strip() for name in pattern.split(",")]


def _least_depth(names: list[str]) -> int:
    """The depth at which each kind of layer has stood once."""
    return 1 + max(names.index(name) for name in names)
