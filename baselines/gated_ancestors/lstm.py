"""LSTM: a cell that is kept, written and read by gates.

Hochreiter and Schmidhuber 1997 with the forget gate of Gers, Schmidhuber and Cummins 2000, and as a setting the peepholes of
Gers and Schmidhuber 2000, in the form of Greff et al. 2016, arXiv 1503.04069 ("vanilla"):

    i, f = sigmoid(W x + R h + p * c + b),   z = tanh(W x + R h + b),   c <- f c + i z
    o = sigmoid(W x + R h + p * c + b),      h <- o tanh(c)                       o's peephole sees the new c

Initialisation: matrices as torch's LSTM, uniform within inner^-1/2; biases 0 but 1 for the forget gate (Jozefowicz et al. 2015);
peepholes 0. With `longest` the biases are chrono's (Tallec and Ollivier 2018, arXiv 1804.11188): b_f = log u, u uniform in
[1, longest - 1], and b_i = -b_f.

Deviations: the layer stands in the benchmark's shell, with a linear map back to the model's width, where the papers stack bare
cells. Greff et al. draw all weights normal with 0.1.
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
    "lstm",
    paper="Greff et al. 2016, arXiv 1503.04069",
    equation="c <- f c + i z;  h <- o tanh(c);  i, f, o, z from x and h",
)
class LSTM(nn.Module):
    """The LSTM layer. State: h and c [b, 2, inner]."""

    law = Law(
        forget="f, per unit, from x and h",
        compare="-",
        write="i z",
        read="o tanh(c)",
    )
    period = 1
    fixed_state = True
    no_weight_decay = ("peepholes",)
    with_weight_decay = ("recurrent",)

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        peepholes: bool = False,
        longest: int | None = None,
        provider: str = "auto",
    ):
        """`inner` is the number of units, the model's width by default; `heads` is not used.

        `longest` is the longest dependency, in tokens, that chrono initialisation prepares for; None for forget biases of 1.
        """
        super().__init__()
        inner = width if inner is None else inner
        self.inner, self.provider = inner, provider
        self.project = nn.Linear(width, 4 * inner)  # input, forget, candidate, output
        self.recurrent = nn.Parameter(torch.empty(4 * inner, inner))
        self.peepholes = nn.Parameter(torch.zeros(3, inner)) if peepholes else None
        self.out = nn.Linear(inner, width, bias=False)
        for weight in (self.project.weight, self.recurrent):
            nn.init.uniform_(weight, -(inner**-0.5), inner**-0.5)
        with torch.no_grad():
            write, forget, _, _ = self.project.bias.zero_().chunk(4)
            if longest is None:
                forget.fill_(1.0)
            else:
                forget.copy_(chrono_bias(inner, longest))
                write.copy_(-forget)

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        y, last = recurrent_cell(
            x,
            self.project.weight,
            self.recurrent[None],
            cell="lstm",
            bias=self.project.bias,
            peephole=self.peepholes,
            state=None if state is None else state[0],
            provider=self.provider,
        )
        return self.out(y), (last,)

    def flops(self, time: int) -> Flops:
        """Of the products with the last output."""
        return recurrent_cell_flops(time, "lstm", self.inner)
