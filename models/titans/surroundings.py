"""What the models after Titans share: projections, short convolution and gates before a memory, norm and gate behind it.

    q, k, v = SiLU(conv(x W)), each of unit length a head;      out = W_o ( RMSNorm_h(y) * silu(W_g x) )

as in Titans' LMM (`models/titans/lmm.py`; its section 4.4). What differs is the memory in the middle, `remember`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import at_least_float32, convolved_heads, gated, l2_norm, maps
from models.titans.memory_layer import FORGET_LOGITS, SHARPER, HeadNorm, convolution_of, output_projection, sharpness

State = tuple[Tensor, Any]  # the convolution's last inputs and the law's own state


class MemoryLayer(nn.Module):
    """A memory's surroundings: `remember(q, k, v, logits, state) -> (y, state)` is what a class fills in.

    `keys` and `values` are widths a head; `gates` counts the numbers a head that are computed from each token, the last of
    which is the logit of forgetting; its bias makes the first head forget in about 20 tokens, the last in 400.
    """

    fixed_state = True
    with_weight_decay = ("initial",)  # the papers are silent; as the like parts of TTT's code

    def __init__(
        self,
        width: int,
        heads: int,
        keys: int,
        values: int,
        gates: int,
        convolution: bool,
        unit_values: bool,
        provider: str,
    ):
        super().__init__()
        self.heads, self.unit_values, self.provider = heads, unit_values, provider
        self.widths = [heads * keys, heads * keys, heads * values]
        self.qkv = nn.Linear(width, sum(self.widths), bias=False)
        self.convolution = convolution_of(sum(self.widths), convolution, provider)
        self.gates = nn.Linear(width, gates * heads)
        self.norm = HeadNorm(heads, heads * values, provider)
        self.gate = nn.Linear(width, heads * values, bias=False)
        self.out = output_projection(heads * values, width)
        for projection in (self.qkv, self.gate):
            nn.init.normal_(projection.weight, std=width**-0.5)
        nn.init.normal_(self.gates.weight, std=0.02)
        with torch.no_grad():
            self.gates.bias.zero_()
            self.gates.bias[-heads:] = torch.linspace(*FORGET_LOGITS, heads)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        tail, memory = (None, None) if state is None else state
        qkv, logits, gate = maps(x, self.qkv, self.gates, self.gate, provider=self.provider)
        (q, k, v), tail = convolved_heads(self.convolution, qkv, tail, self.widths, self.heads, unit=2)
        logits = at_least_float32(logits).chunk(self.gates.out_features // self.heads, dim=-1)
        y, memory = self.remember(q, k, l2_norm(v) if self.unit_values else v, logits, memory)
        return maps(gated(self.norm(y), gate, self.provider), self.out, provider=self.provider)[0], (tail, memory)

    def remember(self, q: Tensor, k: Tensor, v: Tensor, logits: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        """What each token reads, [b, t, h, values], and the memory's state; logits [b, t, h] one by one."""
        raise NotImplementedError


def sizes_of(keys: int, values: int, depth: int, expansion: int) -> list[int]:
    """Widths of a memory's layers. Raises ValueError for a memory without layers or hidden units."""
    if depth < 1 or expansion < 1:
        raise ValueError(f"memory_depth and expansion must be at least 1, not {depth} and {expansion}.")
    return [keys, *[expansion * values] * (depth - 1), values]


def spreads(sizes: Sequence[int]) -> list[float]:
    """Standard deviations that Titans' learned memories are drawn with here: hidden units of about unit length, a small end."""
    return [*(2 * hidden**-0.5 for hidden in sizes[1:-1]), 0.1 * sizes[-2] ** -0.5]


def drawn_memory(heads: int, sizes: Sequence[int]) -> nn.ParameterList:
    """The weights that every text begins with, [h, in, out] per layer."""
    pairs = zip(sizes, sizes[1:], spreads(sizes), strict=False)
    return nn.ParameterList(torch.randn(heads, given, made) * std for given, made, std in pairs)


def held(bound: float, initial: nn.ParameterList, sizes: Sequence[int]) -> Tensor | float:
    """The largest rate [h]: less than `bound` where the learned weights have grown beyond what it counts on, as in Titans."""
    if len(initial) == 1:
        return bound
    drawn = [torch.full_like(weight[:1], std) for weight, std in zip(initial, spreads(sizes), strict=True)]
    return bound * (SHARPER * sharpness(tuple(drawn)) / sharpness(tuple(initial))).clamp_max(1)
