"""Transformer-XL: each segment also sees the keys and values of the tokens before it, through which no gradient passes.

Dai et al. 2019, arXiv 1901.02860, Section 3, as the authors' code (kimiyoung/transformer-xl) has it. With X the segment and
SG(M) the layer's inputs at the last `memory` tokens before it, gradient stopped:

    q = W_q X,   k, v = W [SG(M) ; X],   r_n = W_R [ sin(n f) | cos(n f) ],   f_l = 10000^(-2 l / D)
    y_i = softmax_j( ((q_i + u) k_j + (q_i + w) r_{i-j}) / sqrt(d) ) v_j   over j <= i in [M ; X],   out = W_o y

W learns from the memory's keys and values too. u and w [h, d]; no other bias. All is drawn N(0, 0.02). u and w do not decay.

Segments are counted from a text's first token, and a text begins with an empty memory. The authors' span depends on where calls
begin; calls of whole segments from the first token on are the same thing. `detach=False` lets the gradient through the memory of
one text. `evaluation_memory` is a longer memory (the authors' 2,100 for 512), in evaluation alone.

Deviations: pre-norm, SwiGLU and the tied embedding of the shell (the authors have post-norm, ReLU with biases and an embedding
times sqrt(D)); u and w for each layer, which their code shares; segment and memory default to 64 instead of 512, for models
trained on hundreds of tokens; no clamped distances.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import at_least_float32, linear_flops, split_heads
from models.ops.flops import Flops, filled, product_flops
from models.ops.providers import note
from models.registry import register
from models.shell.segments import in_blocks

# Keys and values of the memory [b, m, h, d]; of the open segment the inputs [b, c, D], keys and values [b, c, h, d].
State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]


def token_by_token(layer: TransformerXL, x: Tensor, state: None = None) -> tuple[Tensor, None]:
    """The layer from its equations, one query and one key after the other, of a whole text x [b, t, D]."""
    ys, memory = [], layer.memory
    for i in range(x.shape[1]):
        start = i - i % layer.segment
        q = split_heads(layer.query(x[:, i]), layer.heads)
        scores, values = [], []
        for j in range(max(0, start - memory), i + 1):
            heard = x[:, j].detach() if j < start and layer.detaches else x[:, j]
            k, v = (split_heads(part, layer.heads) for part in layer.key_value(heard).chunk(2, dim=-1))
            r = split_heads(layer.place(places(torch.tensor([i - j]), x.shape[2], x.dtype))[0], layer.heads)
            score = ((q + layer.content_bias) * k).sum(-1) + ((q + layer.place_bias) * r).sum(-1)
            scores.append(score / q.shape[-1] ** 0.5)
            values.append(v)
        weight = torch.stack(scores, -1).softmax(-1)
        ys.append(torch.einsum("bhj,jbhd->bhd", weight, torch.stack(values)).flatten(1))
    return layer.out(torch.stack(ys, 1)), None


def places(distance: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sines and cosines [n, width] of distances [n]."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=distance.device, dtype=torch.float64) / width)
    angle = distance.to(frequency)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1).to(dtype)


@register(
    "transformer-xl",
    paper="Dai et al. 2019, arXiv 1901.02860",
    equation="y_i = softmax_j((q_i + u) k_j + (q_i + w) W_R r_{i-j}) v_j over [SG(memory) ; segment]",
)
class TransformerXL(nn.Module):
    """Attention over the open segment and the `memory` tokens before it, by relative places."""

    fixed_state = True
    exam_settings = ("evaluation_memory",)
    no_weight_decay = ("content_bias", "place_bias")
    law = Law(
        "what is `memory` tokens before the segment", "-", "the segment's inputs", "softmax by content and distance"
    )
    reference = staticmethod(token_by_token)

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        segment: int = 64,
        memory: int = 64,
        evaluation_memory: int | None = None,
        detach: bool = True,
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        super().__init__()
        inner = width if inner is None else inner
        kept = memory if evaluation_memory is None else evaluation_memory
        if inner % heads or width % 2 or segment < 1 or memory < 1 or kept < 1:
            raise ValueError(
                f"Transformer-XL needs an even width ({width}), inner ({inner}) as a multiple of heads ({heads}), segment >= 1, "
                f"memory >= 1 and evaluation_memory >= 1 (or None for memory)."
            )
        self.heads, self.segment, self.lengths, self.detaches = heads, segment, (memory, kept), detach
        self.query, self.key_value = nn.Linear(width, inner, bias=False), nn.Linear(width, 2 * inner, bias=False)
        self.place, self.out = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        self.content_bias, self.place_bias = (nn.Parameter(torch.empty(heads, inner // heads)) for _ in range(2))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    @property
    def memory(self) -> int:
        """How many tokens before the open segment are seen, in training or in evaluation."""
        return self.lengths[0 if self.training else 1]

    @property
    def period(self) -> int:
        """The segment or the memory, whichever is longer."""
        return max(self.segment, *self.lengths)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        note("chunked")
        q, k, v = split_heads(self.query(x), self.heads), *self._keys_values(x)
        rows, size = x, self.segment
        if state is None:
            old_k, old_v, count = k[:, :0], v[:, :0], 0
        else:
            old_k, old_v, rows, k, v, count = *state[:2], *map(_joined, state[2:5], (x, k, v)), state[5]
        total = count + x.shape[1]
        closed = total // size * size
        past = self.memory if closed else old_k.shape[1]
        # What later segments hear of the closed ones; the memory before them is filled up with zeros, which are hidden.
        heard = self._keys_values(rows[:, :closed].detach()) if self.detaches else (k[:, :closed], v[:, :closed])
        heard = [_joined(old, new) for old, new in zip((old_k, old_v), heard, strict=True)]
        if total <= size:
            y = self._attend(q, _joined(old_k, k), _joined(old_v, v), None)
        else:
            y = self._segments(in_blocks(q, count, size), heard, (k, v), old_k.shape[1])
            y = y[:, count:total]
        kept = max(0, heard[0].shape[1] - past)
        rest = (part[:, closed:].clone() for part in (rows, k, v))
        return self.out(y.flatten(2)), (*(part[:, kept:].clone() for part in heard), *rest, total - closed)

    def flops(self, time: int) -> Flops:
        """Of scores by content and by distance, values, and of what beside the tokens passes the projections."""
        rows, seen = filled(time, self.segment), self.segment + self.memory
        if time <= self.segment:
            rows = seen = time
        total = product_flops(rows * self.out.in_features * (3 * seen + 1)).plus(linear_flops(self.place, -time))
        closed = time // self.segment * self.segment if self.detaches else 0
        apart = linear_flops(self.place, seen + 1).plus(linear_flops(self.key_value, closed)).forward
        return total.plus(Flops(apart, apart))  # backward to the weights alone

    def _keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.key_value(x).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def _segments(self, q: Tensor, heard: list[Tensor], own: tuple[Tensor, Tensor], old: int) -> Tensor:
        """All segments at once: q [b, n, s, h, d], of `heard` [b, m, h, d] the first `old` before them -> y [b, n s, h, d]."""
        batch, count, size = q.shape[:3]
        front = max(0, self.memory - old)  # zeros before a text
        columns = []
        for past, keys in zip(heard, own, strict=True):
            past = F.pad(past[:, max(0, old - self.memory) :], (0, 0, 0, 0, front, 0))
            past = past[:, : self.memory + (count - 1) * size].unfold(1, self.memory, size).movedim(-1, 2)
            columns.append(torch.cat([past, in_blocks(keys, 0, size)], 2).flatten(0, 1))
        first = torch.arange(0, count * size, size, device=q.device)[:, None]
        real = torch.arange(self.memory + size, device=q.device) + first >= front
        real = real.repeat(batch, 1)[:, None, None] if front else None
        return self._attend(q.flatten(0, 1), *columns, real).unflatten(0, (batch, count)).flatten(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        """Attention of the last rows q [b, p, h, d] of n columns k, v, each up to its own; `real` hides columns beside that."""
        rows, columns = q.shape[1], k.shape[1]
        distance = torch.arange(columns - 1, -2, -1, device=q.device)
        r = self.place(places(distance, self.place.in_features, self.place.weight.dtype))
        scale = q.shape[-1] ** -0.5
        q = q.transpose(1, 2)
        content, place = ((q + bias[:, None].to(q.dtype)) * scale for bias in (self.content_bias, self.place_bias))
        # Row i of the products by distance, moved i columns to the left: one column more, of distance -1, makes it a view.
        by_place = (place @ split_heads(r, self.heads).permute(1, 2, 0)).flatten(2)[
            ..., rows - 1 : rows - 1 + rows * columns
        ]
        scores = content @ k.permute(0, 2, 3, 1) + by_place.unflatten(2, (rows, columns))
        hidden = torch.ones(rows, columns, dtype=torch.bool, device=q.device).triu(columns - rows + 1)
        hidden = hidden if real is None else hidden | ~real
        weight = at_least_float32(scores).masked_fill(hidden, -torch.inf).softmax(-1).to(v.dtype)
        return (weight @ v.transpose(1, 2)).transpose(1, 2)


def _joined(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old.to(new.dtype), new], 1)
