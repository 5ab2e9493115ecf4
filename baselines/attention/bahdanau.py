"""Bahdanau attention: a gated recurrent network that looks back over its own past states, by a small network's scores.

Bahdanau, Cho, Bengio 2014, arXiv 1409.0473, where a decoder looks over the states of an encoder; here a text is its own encoder.
With s the state, x the input, `context="fed"`:

    c_t = sum_{j < t} softmax_j( v . tanh(W_a s_{t-1} + U_a s_j + b_a) ) s_j,   c_1 = 0
    r, z = sigmoid(W x_t + U s_{t-1} + C c_t + b),   n = tanh(W_n x_t + U_n (r s_{t-1}) + C_n c_t + b_n)
    s_t = (1 - z) s_{t-1} + z n,   out_t = W_o [s_t | c_t]

one head; z weighs what is new and r stands before U_n, as in the paper (torch.nn.GRU has both otherwise). `context="late"` is
another model, faster since all tokens look at once: C = 0, and then c_t from s_t, over j <= t.

U and U_n are orthogonal at first, gate for gate, W_a and U_a N(0, 0.001^2), v and biases 0, as the paper's.

Deviations: the reading itself; W, C and W_o are N(0, 1 / fan in), since the paper's N(0, 0.01^2) starves a layer behind a norm; a
linear map in place of the maxout readout; gates, states and scores in at least float32.

Speed: every token looks at all states before it through a tanh, t^2 inner / 2 of them, and comes after the one before. A training
step of the layer on one thread of a CPU (width 128) takes 20 times that of full attention at 128 tokens and 26 times at 256;
`context="late"` 7 and 8 times. Training keeps these numbers, 2 t^2 inner bytes a row and layer: 0.27 GB at 16 rows, t 256 and
128 units, so train on 256 tokens or fewer. Beyond, the backward pass computes pieces of 64 tokens again, one kept at a time.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.attention.additive import Weights, behind, fed
from models.attention import Cache, extend
from models.law import Law
from models.layers import at_least_float32
from models.ops.flops import Flops, product_flops
from models.ops.recurrent_cell import recurrent_cell
from models.registry import register

SMALL = 0.001  # of the first weights of the scores


def by_the_equations(module: Bahdanau, x: Tensor, state: None = None) -> tuple[Tensor, None]:
    """The whole text as the docstring has it, token by token from the module's parameters."""
    reset, candidate, key = (part.weight for part in (module.recurrent, module.candidate, module.key))
    score, query, new = module.score.weight[0], module.query, module.feedback and module.feedback.weight
    s, past, ys = x.new_zeros(len(x), module.inner), [], []
    for token in x.unbind(1):
        given, c = module.input(token), torch.zeros_like(s)
        if past and module.context == "fed":
            c = _looked(query(s), past, key, score)
        gates = given if new is None else given + F.linear(c, new)
        r, z = (gates[:, : 2 * module.inner] + F.linear(s, reset)).sigmoid().chunk(2, -1)
        n = (gates[:, 2 * module.inner :] + F.linear(r * s, candidate)).tanh()
        s = (1 - z) * s + z * n
        past.append(s)
        c = c if module.context == "fed" else _looked(query(s), past, key, score)
        ys.append(module.out(torch.cat([s, c], -1)))
    return torch.stack(ys, 1), None


def _looked(query: Tensor, past: list[Tensor], key: Tensor, score: Tensor) -> Tensor:
    scores = torch.stack([(query + F.linear(s, key)).tanh() @ score for s in past], -1)
    return sum(weight[:, None] * s for weight, s in zip(scores.softmax(-1).unbind(-1), past, strict=True))


@register(
    "bahdanau",
    paper="Bahdanau, Cho and Bengio 2014, arXiv 1409.0473",
    equation="s_t = GRU(s_{t-1}, x_t, c_t);  c_t = sum_j softmax_j(v . tanh(W s_{t-1} + U s_j)) s_j",
)
class Bahdanau(nn.Module):
    """The recurrent layer with its attention. State: all states of the text and their keys U_a s; it grows."""

    period = 1
    fixed_state = False
    reference = staticmethod(by_the_equations)
    law = Law(forget="-", compare="-", write="s_t, a GRU of x_t and c_t", read="softmax(v . tanh(W s + U s_j)) s_j")
    reading = "The text is its own encoder: a token looks over the states before it; in the paper over another text's."

    def __init__(self, width: int, heads: int, inner: int | None = None, context: Literal["fed", "late"] = "fed"):
        """`inner` is the number of units, the model's width by default; `heads` is not used."""
        super().__init__()
        if context not in ("fed", "late"):
            raise ValueError(
                f"Unknown context '{context}'; choose fed (into the gates, as the paper) or late (behind them)."
            )
        self.inner, self.context = width if inner is None else inner, context
        wide = self.inner
        self.input = nn.Linear(width, 3 * wide)  # reset, new, candidate
        self.recurrent, self.candidate = nn.Linear(wide, 2 * wide, bias=False), nn.Linear(wide, wide, bias=False)
        self.feedback = nn.Linear(wide, 3 * wide, bias=False) if context == "fed" else None
        self.query, self.key = nn.Linear(wide, wide), nn.Linear(wide, wide, bias=False)
        self.score = nn.Linear(wide, 1, bias=False)
        self.out = nn.Linear(2 * wide, width, bias=False)
        for layer in (self.input, self.feedback, self.out):
            if layer is not None:
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        for gate in (*self.recurrent.weight.chunk(2), self.candidate.weight):
            nn.init.orthogonal_(gate)
        for layer, spread in ((self.query, SMALL), (self.key, SMALL), (self.score, 0.0)):
            nn.init.normal_(layer.weight, std=spread)
        for layer in (self.input, self.query):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, state: tuple[Cache] | None = None) -> tuple[Tensor, tuple[Cache]]:
        cache, given = None if state is None else state[0], at_least_float32(self.input(x))
        with torch.autocast(x.device.type, enabled=False):
            states, contexts, cache = (self._fed if self.context == "fed" else self._late)(given, cache)
        return self.out(torch.cat([states, contexts], -1).to(x.dtype)), (cache,)

    def _fed(self, given: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor, Cache]:
        weights = (
            torch.cat([self.recurrent.weight, self.query.weight, self.key.weight]),
            self.query.bias,
            self.feedback.weight,
            self.candidate.weight,
            self.score.weight[0],
        )
        weights = Weights(*(weight.to(given.dtype) for weight in weights))
        past = (given.new_zeros(len(given), 0, self.inner),) * 2
        if cache is not None:
            past = tuple(part[:, : cache[2], 0].to(given.dtype) for part in cache[:2])
        states, contexts, keys = fed(given, *past, weights)
        return states, contexts, extend(cache, keys[:, :, None], states[:, :, None])

    def _late(self, given: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor, Cache]:
        # The house's cell weighs what is old where the paper weighs what is new.
        sign = given.new_tensor([1.0, -1.0, 1.0]).repeat_interleave(self.inner)
        recurrent = sign[:, None] * torch.cat([self.recurrent.weight, self.candidate.weight])
        key, query, bias, score = (
            weight.to(given.dtype)
            for weight in (self.key.weight, self.query.weight, self.query.bias, self.score.weight[0])
        )
        last = None if cache is None else cache[1][:, cache[2] - 1 : cache[2], 0]
        states, _ = recurrent_cell(sign * given, None, recurrent[None], cell="gru-reset-before", state=last)
        cache = extend(cache, F.linear(states, key)[:, :, None], states[:, :, None])
        keys, values = (part[:, : cache[2], 0] for part in cache[:2])
        return states, behind(F.linear(states, query, bias), keys, values, score), cache

    def flops(self, time: int) -> Flops:
        """Of the scores' and the contexts' products; each nn.Linear is counted without being told."""
        return product_flops(time * (time + (self.context == "late")) * self.inner)
