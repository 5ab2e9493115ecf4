"""GRU: one gate shares the output between what it was and what is new, another resets what the new hears.

Cho et al. 2014, arXiv 1406.1078. The reset gate stands behind the product of the recurrent weights (the paper's first version;
cuDNN and torch compute this one) or before it (its later versions), `reset`:

    r, u = sigmoid(W x + R h + b),   h <- u h + (1 - u) n
    n = tanh(W_n x + b + r (R_n h + b_n))   "behind",      n = tanh(W_n x + b + R_n (r h))   "before"

Initialisation is the paper's: recurrent weights orthogonal, each gate for itself, all else normal with 0.01; biases 0.

Deviations: the layer stands in the benchmark's shell, with a linear map back to the model's width. The default is the first
version's, since that is what "GRU" computes almost everywhere today, in one product a token instead of two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.law import Law
from models.ops.flops import Flops
from models.ops.recurrent_cell import recurrent_cell
from models.ops.recurrent_cell.flops import recurrent_cell_flops
from models.registry import register

CELLS = {"behind": "gru", "before": "gru-reset-before"}


@register(
    "gru",
    paper="Cho et al. 2014, arXiv 1406.1078",
    equation="h <- u h + (1 - u) tanh(W x + r (R h));  r, u from x and h",
)
class GRU(nn.Module):
    """The GRU layer. State: h [b, 1, inner]."""

    law = Law(
        forget="u, per unit, from x and h",
        compare="-",
        write="(1 - u) tanh(W x + r (R h))",
        read="h",
    )
    period = 1
    fixed_state = True
    no_weight_decay = ("candidate_bias",)
    with_weight_decay = ("recurrent",)

    def __init__(self, width: int, heads: int, inner: int | None = None, reset: str = "behind", provider: str = "auto"):
        """`inner` is the number of units, the model's width by default; `heads` is not used.

        `reset` says where the reset gate stands: "behind" the recurrent product, or "before" it.
        """
        super().__init__()
        inner = width if inner is None else inner
        if reset not in CELLS:
            raise ValueError(f"GRU's reset gate stands 'behind' the recurrent product or 'before' it, not {reset!r}.")
        self.inner, self.cell, self.provider = inner, CELLS[reset], provider
        self.project = nn.Linear(width, 3 * inner)  # reset, update, candidate
        self.recurrent = nn.Parameter(torch.empty(3 * inner, inner))
        self.candidate_bias = nn.Parameter(torch.zeros(inner)) if reset == "behind" else None
        self.out = nn.Linear(inner, width, bias=False)
        nn.init.normal_(self.project.weight, std=0.01)
        nn.init.zeros_(self.project.bias)
        for gate in self.recurrent.chunk(3):
            nn.init.orthogonal_(gate)

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        y, last = recurrent_cell(
            x,
            self.project.weight,
            self.recurrent[None],
            cell=self.cell,
            bias=self.project.bias,
            candidate_bias=self.candidate_bias,
            state=None if state is None else state[0],
            provider=self.provider,
        )
        return self.out(y), (last,)

    def flops(self, time: int) -> Flops:
        """Of the products with the last output."""
        return recurrent_cell_flops(time, self.cell, self.inner)
