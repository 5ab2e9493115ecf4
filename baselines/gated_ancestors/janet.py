"""JANET: just another network, the LSTM with nothing but its forget gate.

Van der Westhuizen and Lasenby 2018, arXiv 1804.04849, Section 3, as the authors' code (JosvanderWesthuizen/janet) has it:

    f, z = W x + R h + b,   h <- sigmoid(f) h + (1 - sigmoid(f - 1)) tanh(z)

The 1 inside the second gate is the paper's beta, which lets more be written than is forgotten. Initialisation is theirs: W and R
each Glorot uniform, the candidate's bias 0, the forget gate's chrono's (Tallec and Ollivier 2018, arXiv 1804.11188): log u,
u uniform in [1, longest - 1]. The longest dependency is the text's length in their experiments.

Deviations: the layer stands in the benchmark's shell, with a linear map back to the model's width. Their code draws u up to
`longest`; the paper says `longest - 1`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.law import Law
from models.ops.flops import Flops
from models.ops.recurrent_cell import recurrent_cell
from models.ops.recurrent_cell.flops import recurrent_cell_flops
from models.ops.recurrent_cell.initial import chrono_bias
from models.registry import register


@register(
    "janet",
    paper="Van der Westhuizen and Lasenby 2018, arXiv 1804.04849",
    equation="h <- sigmoid(f) h + (1 - sigmoid(f - 1)) tanh(z);  f, z from x and h",
)
class Janet(nn.Module):
    """The JANET layer. State: h [b, 1, inner]."""

    law = Law(
        forget="sigmoid(f), per unit, from x and h",
        compare="-",
        write="(1 - sigmoid(f - 1)) tanh(z)",
        read="h",
    )
    period = 1
    fixed_state = True
    with_weight_decay = ("recurrent",)

    def __init__(
        self, width: int, heads: int, inner: int | None = None, longest: int | None = 512, provider: str = "auto"
    ):
        """`inner` is the number of units, the model's width by default; `heads` is not used.

        `longest` is the longest dependency, in tokens, that chrono initialisation prepares for; None for forget biases of 1.
        """
        super().__init__()
        inner = width if inner is None else inner
        self.inner, self.provider = inner, provider
        self.project = nn.Linear(width, 2 * inner)  # forget, candidate
        self.recurrent = nn.Parameter(torch.empty(2 * inner, inner))
        self.out = nn.Linear(inner, width, bias=False)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.xavier_uniform_(self.recurrent)
        with torch.no_grad():
            forget, _ = self.project.bias.zero_().chunk(2)
            forget.copy_(torch.ones(inner) if longest is None else chrono_bias(inner, longest))

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        y, last = recurrent_cell(
            x,
            self.project.weight,
            self.recurrent[None],
            cell="janet",
            bias=self.project.bias,
            state=None if state is None else state[0],
            provider=self.provider,
        )
        return self.out(y), (last,)

    def flops(self, time: int) -> Flops:
        """Of the products with the last output."""
        return recurrent_cell_flops(time, "janet", self.inner)
