"""HGRN2: a linear RNN whose key is what its gate lets go, under bounds that rise from layer to layer.

Qin et al. 2024, arXiv 2404.07904, Section 3, as flash-linear-attention (layer and model `hgrn2`) has it:

    S <- diag(f) S + (1 - f) v^T,   y = S^T q,   out = W_o norm(y)
    f = c_l + (1 - c_l) sigmoid(W_f x),   q = silu(W_q x) / sqrt(K),   v = W_v x
    c = cumsum(softmax(B)) - softmax(B)_0 over the layers, channel by channel

so that the first layer may forget all (c = 0) and each one behind it must keep more. B [layers, d] is learned and begins at 0.
The bounds tie all layers together, so it is a whole language model: the shell's, whose layers are told their bounds. The norm
goes over the full width. All maps begin normal with 0.02.

Deviations: heads are the benchmark's, where the library fixes 128 channels a head. B does not decay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, at_least_float32, split_heads
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register
from models.shell.carried_state import StateMismatch
from models.shell.model import Block, LanguageModel, Size


class HGRN2Layer(nn.Module):
    """The layer under its bound; its state is S [b, h, k, v]."""

    def __init__(self, width: int, heads: int, inner: int, provider: str):
        super().__init__()
        self.heads, self.provider = heads, provider
        self.project = nn.Linear(width, 3 * inner, bias=False)  # queries, gates, values
        self.norm = RMSNorm(inner, eps=1e-5)
        self.out = nn.Linear(inner, width, bias=False)
        for layer in (self.project, self.out):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor, bound: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """`bound` c [d] of the gates, None for 0."""
        q, f, v = self.project(x).chunk(3, dim=-1)
        log_forget = F.logsigmoid(at_least_float32(f))
        if bound is not None:  # in logarithms, where a gate near 1 keeps its digits
            log_forget = torch.logaddexp(bound.log(), torch.log1p(-bound) + log_forget)
        q, k, v, log_forget = (
            split_heads(part, self.heads) for part in (F.silu(q), -torch.expm1(log_forget).to(q.dtype), v, log_forget)
        )
        y, state = scan(q * q.shape[-1] ** -0.5, k, v, log_forget=log_forget, state=state, provider=self.provider)
        return self.out(self.norm(y.flatten(2))), state

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        width = self.out.in_features // self.heads
        return scan_flops(time, self.heads, width, width, per_channel=True)


@register(
    "hgrn2",
    paper="Qin et al. 2024, arXiv 2404.07904",
    equation="S <- diag(f) S + (1 - f) v^T;  y = S^T q;  f above a bound that rises with depth",
)
class HGRN2(LanguageModel):
    """A whole language model of HGRN2 layers. State: each layer's S [b, h, k, v]."""

    law = Law(
        forget="f, per key channel, from x, above the layer's bound",
        compare="-",
        write="(1 - f) v^T",
        read="S^T q",
    )
    period = 64  # no chunk of the chunked form is longer
    fixed_state = True
    no_weight_decay = ("bounds",)

    def __init__(self, size: Size, feed: int, inner: int | None = None, provider: str = "auto"):
        """`inner` is the width of queries, gates and values over all heads, the model's by default."""
        inner = size.width if inner is None else inner
        if inner % size.heads:
            raise ValueError(f"HGRN2's inner width {inner} must be a multiple of its {size.heads} heads; change inner.")
        layers = [HGRN2Layer(size.width, size.heads, inner, provider) for _ in range(size.depth)]
        super().__init__(size, [Block(size.width, layer, feed) for layer in layers])
        self.bounds = nn.Parameter(torch.zeros(size.depth, inner)) if size.depth > 1 else None

    def lower_bounds(self) -> list[Tensor | None]:
        """c [d] of every layer, None for the first, which has none."""
        if self.bounds is None:
            return [None]
        share = at_least_float32(self.bounds).softmax(0)
        return [None, *share[1:].cumsum(0)]

    def hidden(self, tokens: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        if state is not None and (not isinstance(state, tuple | list) or len(state) != len(self.blocks)):
            raise StateMismatch(f"That state is no tuple of {len(self.blocks)} mixers' states: it is another model's.")
        x, states = self.embedding(tokens), []
        for index, (block, bound) in enumerate(zip(self.blocks, self.lower_bounds(), strict=True)):
            y, after = block.mixer(block.mixer_norm(x), bound, None if state is None else state[index])
            x = x + y
            x = x + block.feed(block.feed_norm(x))
            states.append(after)
        return self.norm(x), tuple(states)
