"""Titans' long-term memory alone as the token mixer (LMM; Behrouz et al. 2025, arXiv 2501.00663, section 3).

    S_t = eta_t S_{t-1} - theta_t grad l(M_a; k_t, v_t),   M_t = (1 - alpha_t) M_{t-1} + S_t,   y_t = M_t(q_t)

then a norm per head, a linear gate and the output projection (section 4.4). `docs/titans.md` maps every equation and ambiguity.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.law import Law
from models.layers import gated, maps
from models.registry import register
from models.titans.memory_layer import HeadNorm, Memory, MemoryState, inner_width, output_projection
from models.titans.memory_settings import MemorySettings


@register(
    "titans-lmm",
    paper="Behrouz, Zhong and Mirrokni 2024, arXiv 2501.00663",
    equation="S <- eta S - theta grad |M(k) - v|^2;  M <- (1 - alpha) M + S;  y = M(q)",
)
class TitansLMM(nn.Module):
    """The neural memory with short convolutions before it and a norm and a gate behind it."""

    law = Law(
        forget="1 - alpha, per head, from x",
        compare="M(k) - v",
        write="S = eta S - theta grad |M(k) - v|^2",
        read="M(q)",
    )
    reading = "ranges of rates and gates"
    fixed_state = True

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        memory: MemorySettings = MemorySettings(),
        provider: str = "auto",
    ):
        super().__init__()
        inner = inner_width(width, heads, inner)
        self.period = memory.chunk
        self.memory = Memory(width, heads, inner, memory, provider)
        self.norm = HeadNorm(heads, inner, provider)
        self.gate = nn.Linear(width, inner, bias=False)
        self.out = output_projection(inner, width)
        nn.init.normal_(self.gate.weight, std=width**-0.5)

    def forward(self, x: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        y, state = self.memory(x, state)
        (gate,) = maps(x, self.gate, provider=self.memory.provider)
        y = gated(self.norm(y), gate, self.memory.provider)
        return maps(y, self.out, provider=self.memory.provider)[0], state
