"""Titans with memory as layer (MAL; Behrouz et al. 2025, arXiv 2501.00663, eqs. 29-31).

    x~ = [P | x],   y = M(x~),   o = SW-Attn*(y)

One after the other, each with the residual connection that the paper's equations leave out (section 4.4): y = x~ + M(x~), and
the layer adds M(x~) + SW-Attn*(RMSNorm(y)) to the stream. `inner_residual=False` is the equations to the letter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.law import Law
from models.layers import RMSNorm
from models.registry import register
from models.titans.lmm import TitansLMM
from models.titans.memory_layer import MemoryState, inner_width, output_projection, persistent_tokens
from models.titans.memory_settings import MemorySettings
from models.titans.window import PrefixedWindow, WindowState


@register(
    "titans-mal",
    paper="Behrouz, Zhong and Mirrokni 2024, arXiv 2501.00663",
    equation="y = M([P | x]);  o = SW-Attn(y)",
)
class TitansMAL(nn.Module):
    """The long-term memory layer, then sliding-window attention over what it gives."""

    law = Law(
        forget="1 - alpha, per head, from x",
        compare="M(k) - v",
        write="S = eta S - theta grad |M(k) - v|^2",
        read="M(q), then window attention",
    )
    reading = "the residual between its two halves; ranges of rates and gates"
    fixed_state = True
    with_weight_decay = ("persistent",)  # the paper is silent; RMT's code decays its memory tokens

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        window: int = 64,
        persistent: int = 4,
        inner_residual: bool = True,
        memory: MemorySettings = MemorySettings(),
        provider: str = "auto",
    ):
        super().__init__()
        inner = inner_width(width, heads, inner)
        self.period, self.inner_residual = max(memory.chunk, window), inner_residual
        self.persistent = persistent_tokens(persistent, width)
        self.memory = TitansLMM(width, heads, inner, memory, provider)
        self.norm = RMSNorm(width)
        self.attention = PrefixedWindow(width, heads, inner, window, persistent, memory.convolution)
        self.out = output_projection(inner, width)

    def forward(
        self, x: Tensor, state: tuple[MemoryState, WindowState] | None = None
    ) -> tuple[Tensor, tuple[MemoryState, WindowState]]:
        memory, window = (None, None) if state is None else state
        time = x.shape[1]
        if state is None:
            x = torch.cat([self.persistent.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        m, memory = self.memory(x, memory)
        y = x + m if self.inner_residual else m
        o, window = self.attention(self.norm(y), window)
        o = self.out(o)
        return (m[:, -time:] + o if self.inner_residual else o), (memory, window)
