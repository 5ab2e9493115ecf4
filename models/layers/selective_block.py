"""Mamba's block around a recurrence of which every channel has N numbers."""

from __future__ import annotations

import math

from torch import Tensor, nn

from models.layers import ShortConvolution, convolved, gated, maps


class SelectiveBlock(nn.Module):
    """Gate and input projections, a causal convolution, SiLU, and a product that gives the recurrence its inputs:

        x, z = W_in u;   x = silu(conv(x));   t, k, q = W_x x, of widths `rank`, N and N;   out = W_out ( y * silu(z) )

    A class makes what it learns besides in `learn` and says in `run` what y is. State: the convolution's last inputs, and its
    own. The block mixes channels itself.
    """

    fixed_state = True
    mixes_channels = True
    state_setting = "states"

    def __init__(self, width: int, inner: int | None, states: int, kernel: int, provider: str):
        """`inner` is the number of channels, twice the width by default; `states` is N."""
        super().__init__()
        inner = 2 * width if inner is None else inner
        self.provider, self.states, self.rank = provider, states, math.ceil(width / 16)
        self.project = nn.Linear(width, 2 * inner, bias=False)
        self.convolution = ShortConvolution(inner, kernel, bias=True, provider=provider)
        self.select = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.learn(inner)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, own = (None, None) if state is None else state
        x, z = maps(x, self.project, provider=self.provider)[0].chunk(2, dim=-1)
        x, tail = convolved(self.convolution, x, tail)
        (selected,) = maps(x, self.select, provider=self.provider)
        y, own = self.run(x, *selected.split([self.rank, self.states, self.states], dim=-1), own)
        return maps(gated(y, z, self.provider), self.out, provider=self.provider)[0], (tail, own)

    def learn(self, inner: int) -> None:
        """Make the parameters of the recurrence over `inner` channels."""
        raise NotImplementedError

    def run(self, x: Tensor, t: Tensor, k: Tensor, q: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """y [b, t, d] of x [b, t, d], t [b, t, rank], keys k and queries q [b, t, N]; and the state after."""
        raise NotImplementedError
