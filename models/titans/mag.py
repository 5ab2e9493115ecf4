"""Titans with memory as gate (MAG; Behrouz et al. 2025, arXiv 2501.00663, eqs. 26-28).

    x~ = [P | x],   y = SW-Attn*(x~),   o = RMSNorm_a(y) * sigma(RMSNorm_b(M(x~)))

Window attention and memory run side by side on the same tokens; the persistent tokens P stay visible to every window and are the
first thing that the memory learns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.law import Law
from models.registry import register
from models.titans.memory_layer import Gating, Memory, MemoryState, inner_width, output_projection, persistent_tokens
from models.titans.memory_settings import MemorySettings
from models.titans.window import PrefixedWindow, WindowState


@register(
    "titans-mag",
    paper="Behrouz, Zhong and Mirrokni 2024, arXiv 2501.00663",
    equation="o = norm(SW-Attn([P | x])) * sigma(norm(M([P | x])))",
)
class TitansMAG(nn.Module):
    """Sliding-window attention gated by the neural memory."""

    law = Law(
        forget="1 - alpha, per head, from x",
        compare="M(k) - v",
        write="S = eta S - theta grad |M(k) - v|^2",
        read="window attention, gated by M(q)",
    )
    reading = "ranges of rates and gates"
    fixed_state = True
    with_weight_decay = ("persistent",)  # the paper is silent; RMT's code decays its memory tokens

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        window: int = 64,
        persistent: int = 4,
        memory: MemorySettings = MemorySettings(),
        provider: str = "auto",
    ):
        super().__init__()
        inner = inner_width(width, heads, inner)
        self.period = max(memory.chunk, window)
        self.persistent = persistent_tokens(persistent, width)
        self.memory = Memory(width, heads, inner, memory, provider)
        self.attention = PrefixedWindow(width, heads, inner, window, persistent, memory.convolution)
        self.gating = Gating(inner, provider)
        self.out = output_projection(inner, width)

    def forward(
        self, x: Tensor, state: tuple[MemoryState, WindowState] | None = None
    ) -> tuple[Tensor, tuple[MemoryState, WindowState]]:
        memory, window = (None, None) if state is None else state
        if state is None:
            x = torch.cat([self.persistent.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        m, memory = self.memory(x, memory)
        y, window = self.attention(x, window)
        m = m[:, m.shape[1] - y.shape[1] :].flatten(2)
        return self.out(self.gating(y, m)), (memory, window)
