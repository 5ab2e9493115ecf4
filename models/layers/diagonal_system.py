"""S4D's layer around a diagonal state space: what is learned, how it becomes a step, and the gated map behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import at_least_float32
from models.layers.derived import Derived
from models.ops.convolution.discrete import bilinear, zero_order_hold
from models.ops.convolution.initial import POLES, complex_normal, log_steps, poles, repeated

DISCRETE = {"zoh": zero_order_hold, "bilinear": bilinear}


class DiagonalSystem(nn.Module):
    """A diagonal state space for every channel, and a gated map behind: a class says in `run` what the state does.

    Initialisation is S4D's (Gu, Gupta, Goel, Re 2022, arXiv 2206.11893), from which such layers descend.
    """

    period = 32  # the chunk of the chunked form
    fixed_state = True
    state_setting = "states"
    no_weight_decay = ("log_dt", "log_real", "imaginary")
    with_weight_decay = ("C", "D")

    def __init__(self, width: int, inner: int | None, states: int, init: str, discretisation: str, provider: str):
        """`states` are complex numbers a channel; `inner` is the number of channels, the model's width by default.

        Where `inner` is another number, a product in front makes the channels. Raises ValueError.
        """
        super().__init__()
        inner = width if inner is None else inner
        if init not in POLES or discretisation not in DISCRETE:
            raise ValueError(
                f"Choose init {', '.join(POLES)} and discretisation {', '.join(DISCRETE)}, "
                f"not {init!r} and {discretisation!r}."
            )
        if states < 1:
            raise ValueError(f"A channel needs at least 1 state, not {states}; raise states.")
        self.provider, self.states, self.discrete = provider, states, DISCRETE[discretisation]
        self.project = nn.Identity() if inner == width else nn.Linear(width, inner, bias=False)
        self.log_dt = nn.Parameter(log_steps(inner))
        self.log_real = nn.Parameter(torch.full((inner, states), 0.5).log())
        self.imaginary = nn.Parameter(repeated(poles(init, states), inner))
        self.C = nn.Parameter(complex_normal(inner, states))
        self.D = nn.Parameter(torch.randn(inner))
        self.out = nn.Linear(inner, 2 * width)
        self._held = Derived()

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        x, h = self.project(x), None if state is None else state[0]
        forget, write = self._held(self._in_steps, self.log_real, self.imaginary, self.log_dt)
        y, h = self.run(x, forget, write, torch.view_as_complex(at_least_float32(self.C)), h)
        return F.glu(self.out(F.gelu(y + self.D * x)), dim=-1), (h,)

    def _in_steps(self, *learned: Tensor) -> tuple[Tensor, Tensor]:
        real, imaginary, log_dt = (at_least_float32(p) for p in learned)
        return self.discrete(log_dt.exp(), torch.complex(-real.exp(), imaginary))

    def run(self, x: Tensor, forget: Tensor, write: Tensor, C: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """y [b, t, d] of channels x [b, t, d], and the state after; forget, write and C are complex [d, n]."""
        raise NotImplementedError
