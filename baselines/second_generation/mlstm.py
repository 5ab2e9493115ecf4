"""mLSTM: linear attention whose forget gate is a sigmoid and whose input gate an exponential, with a normaliser.

Beck et al. 2024, arXiv 2405.04517, Section 2.3:

    C <- f C + i (k / sqrt(K)) v^T,   n <- f n + i k / sqrt(K),   y = C^T q / max(|n^T q|, 1);   f = sigmoid(.), i = exp(.)

n is C's column for a value that is always 1. C and n are kept times e^-m with the running maximum m <- max(log f + m, log i), so
that no exponent is above 0; the 1 is e^-m then, and 1e-6 is added to the larger. m is a scale and has no gradient.

The block around it as the authors' code (package xlstm 2.0.6) has it:

    a, z = W_up LN(x);   c = silu(conv(a));   q, k = blocks of 4 of c,   v = blocks of 4 of a;   i, f from W [q, k, v] + b
    block = W_down( (norm_h(y) + skip * c) * silu(z) )

`xlstm-7b` is the layer of xLSTM 7B (Beck et al. 2025, arXiv 2503.13427; the package's `xlstm_large`), pared down to be fast:
q and k of half the width of v, i and f of capped sums, 15 tanh(./15), no convolution and no up-projection;
W_o( sigmoid(W x) * norm_h(y) ), and the shell's SwiGLU behind it.

Initialisation is theirs: W_up, q, k, v normal with sqrt(2 / (5 d)), W_down with 2 / (L sqrt(d)), skip 1; the gates' weights 0,
f's bias from 3 to 6 over the heads, i's normal with 0.1 (7B: -10). The skip weight does not decay, as in their code.

Deviations: where 4 does not divide the inner width, blocks are 2 or 1 wide. xLSTM 7B caps the logits at 30, which is the shell's
part and left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import ShortConvolution, at_least_float32, head_norm, split_heads
from models.ops.flops import Flops, product_flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register

EPSILON = 1e-6
BLOCK, CAP = 4, 15.0
JOINED = 8  # blocks at most that are multiplied as one, the rest of it zeros
SCALED = (
    "C and n decay and nothing is compared, but they are kept times e^-m, and m, which scales all alike, is carried too"
)
Memory = tuple[Tensor, Tensor]  # C with n as its last column [b, h, k, v + 1], and m [b, h]


def exponential_memory(
    q: Tensor, k: Tensor, v: Tensor, write: Tensor, forget: Tensor, state: Memory | None, provider: str
) -> tuple[Tensor, Memory]:
    """y [b, t, h, v] and the memory, from q, k [b, t, h, k], v [b, t, h, v] and the gates' sums `write`, `forget` [b, t, h]."""
    q, k, v, write, forget = (at_least_float32(x) for x in (q, k, v, write, forget))
    log_forget = F.logsigmoid(forget)
    matrix, first = (None, None) if state is None else state
    m = _running_maximum(write, log_forget, first)
    # Nothing is forgotten before a text's first token: any scale does there.
    before = torch.cat([m[:, :1] if first is None else first[:, None].to(m), m[:, :-1]], dim=1)
    y, matrix = scan(
        q,
        k,
        F.pad(v, (0, 1), value=1.0),
        log_forget=log_forget + before - m,  # not clamped at 0: where it rounds to above, its gradient would be lost
        rate=(write - m).exp() * k.shape[-1] ** -0.5,  # what a key is written with, as if it were scaled itself
        state=matrix,
        provider=provider,
    )
    y, n = y.split([v.shape[-1], 1], dim=-1)
    return y / (torch.maximum(n.abs(), (-m).exp()[..., None]) + EPSILON), (matrix, m[:, -1].clone())


@torch.no_grad()
def _running_maximum(write: Tensor, log_forget: Tensor, first: Tensor | None) -> Tensor:
    """m of every token [b, t, h]; sums in float64, since over a long text float32 would lose what is compared."""
    upto = log_forget.double().cumsum(1)
    m = (write.double() - upto).cummax(1).values
    if first is not None:
        m = torch.maximum(m, first[:, None].double())
    return (m + upto).to(write.dtype)


@register(
    "mlstm",
    paper="Beck et al. 2024, arXiv 2405.04517",
    equation="C <- f C + e^i k v^T;  n <- f n + e^i k;  y = C^T q / max(|n^T q|, 1)",
)
class MLSTM(nn.Module):
    """The mLSTM block. State: the convolution's last inputs; C and n [b, h, k, v + 1], m [b, h]."""

    law = Law(
        forget="f, per head, from x",
        compare="-",
        write="e^i k v^T to C, e^i k to n",
        read="C^T q / max(|n^T q|, 1)",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True
    norms_itself = True
    mixes_channels = True
    family_exception = SCALED
    no_weight_decay = ("skip",)
    with_weight_decay = ("queries_keys", "values")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        depth: int = 1,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, twice the model's by default."""
        super().__init__()
        inner = 2 * width if inner is None else inner
        if inner % heads:
            raise ValueError(f"The mLSTM's inner width {inner} must be a multiple of its {heads} heads; change inner.")
        self.heads, self.inner, self.provider = heads, inner, provider
        block = math.gcd(inner, BLOCK)
        self.norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.convolution = ShortConvolution(inner, kernel, bias=True, provider=provider)
        self.queries_keys = nn.Parameter(torch.empty(2, inner // block, block, block))
        self.values = nn.Parameter(torch.empty(1, inner // block, block, block))
        self.gates = nn.Linear(3 * inner, 2 * heads)  # input, forget
        self.head_norm = nn.GroupNorm(heads, inner)
        self.head_norm.bias = None
        self.skip = nn.Parameter(torch.ones(inner))
        self.down = nn.Linear(inner, width, bias=False)
        for weight in (self.up.weight, self.queries_keys, self.values):
            nn.init.normal_(weight, std=math.sqrt(2 / (5 * width)))
        nn.init.normal_(self.down.weight, std=2 / (depth * math.sqrt(width)))
        begin_gates(self.gates, heads)
        nn.init.normal_(self.gates.bias[:heads], std=0.1)

    def forward(self, x: Tensor, state: tuple[Tensor, Memory] | None = None) -> tuple[Tensor, tuple[Tensor, Memory]]:
        tail, memory = (None, None) if state is None else state
        a, z = self.up(self.norm(x)).chunk(2, dim=-1)
        convolved, tail = self.convolution(a, tail)
        convolved = F.silu(convolved)
        (q, k), (v,) = _in_blocks(convolved, self.queries_keys), _in_blocks(a, self.values)
        of_each = (F.linear(part, w) for part, w in zip((q, k, v), self.gates.weight.chunk(3, dim=-1), strict=True))
        write, forget = (sum(of_each) + self.gates.bias).chunk(2, dim=-1)
        parts = (split_heads(part, self.heads) for part in (q, k, v))
        y, memory = exponential_memory(*parts, write, forget, memory, provider=self.provider)
        y = head_norm(y.to(a.dtype), self.head_norm)
        return self.down((y + self.skip * convolved) * F.silu(z)), (tail, memory)

    def flops(self, time: int) -> Flops:
        """Of the scan, and of queries, keys and values."""
        own = self.inner // self.heads
        blocks = self.queries_keys.numel() + self.values.numel()
        return scan_flops(time, self.heads, own, own + 1).plus(
            product_flops(time * blocks * _joined(self.values.shape[1]))
        )


@register(
    "xlstm-7b",
    paper="Beck et al. 2025, arXiv 2503.13427",
    equation="C <- f C + e^i k v^T;  n <- f n + e^i k;  y = C^T q / max(|n^T q|, 1);  i, f capped at 15",
)
class XLSTM7B(nn.Module):
    """The mLSTM layer of xLSTM 7B. State: C and n [b, h, k, v + 1], m [b, h]."""

    law = MLSTM.law
    period = 64  # the chunk of the chunked form
    fixed_state = True
    family_exception = SCALED

    def __init__(self, width: int, heads: int, inner: int | None = None, depth: int = 1, provider: str = "auto"):
        """`inner` is the width of values over all heads, the model's by default; queries and keys have half of it."""
        super().__init__()
        inner = width if inner is None else inner
        if inner % (2 * heads):
            raise ValueError(
                f"xLSTM 7B's inner width {inner} must be a multiple of twice its {heads} heads; change inner."
            )
        self.heads, self.provider, self.widths = heads, provider, [inner // 2, inner // 2, inner, inner]
        self.project = nn.Linear(width, 3 * inner, bias=False)  # queries, keys, values, output gate
        self.gates = nn.Linear(width, 2 * heads)  # input, forget
        self.head_norm = nn.GroupNorm(heads, inner, eps=1e-6)
        self.head_norm.bias = None
        self.out = nn.Linear(inner, width, bias=False)
        nn.init.normal_(self.project.weight, std=math.sqrt(2 / (5 * width)))
        nn.init.normal_(self.out.weight, std=2 / (depth * math.sqrt(width)))
        begin_gates(self.gates, heads)
        nn.init.constant_(self.gates.bias[:heads], -10.0)

    def forward(self, x: Tensor, state: Memory | None = None) -> tuple[Tensor, Memory]:
        q, k, v, output = self.project(x).split(self.widths, dim=-1)
        write, forget = (CAP * (at_least_float32(self.gates(x)) / CAP).tanh()).chunk(2, dim=-1)
        parts = (split_heads(part, self.heads) for part in (q, k, v))
        y, memory = exponential_memory(*parts, write, forget, state, provider=self.provider)
        y = head_norm(y.to(v.dtype), self.head_norm)
        return self.out(output.sigmoid() * y), memory

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        keys, _, values, _ = (width // self.heads for width in self.widths)
        return scan_flops(time, self.heads, keys, values + 1)


def begin_gates(gates: nn.Linear, heads: int) -> None:
    """Weights 0 and the forget gates' biases from 3 to 6 over the heads."""
    nn.init.zeros_(gates.weight)
    with torch.no_grad():
        gates.bias[heads:] = torch.linspace(3.0, 6.0, heads)


def _joined(count: int) -> int:
    return next(joined for joined in range(JOINED, 0, -1) if count % joined == 0)


def _in_blocks(x: Tensor, weight: Tensor) -> Tensor:
    """[b, t, d] times block-diagonal matrices [p, n, j, j], [p, b, t, d]; so small blocks cost less several at a time."""
    kinds, count, size, _ = weight.shape
    joined = _joined(count)
    apart = torch.eye(joined, dtype=weight.dtype, device=weight.device)
    wide = torch.einsum("pgaij,ac->gpaicj", weight.unflatten(1, (-1, joined)), apart)
    wide = wide.reshape(count // joined, -1, joined * size)
    y = torch.einsum("btgj,gij->btgi", x.unflatten(-1, (count // joined, -1)), wide.to(x.dtype))
    return y.unflatten(-1, (kinds, -1)).permute(3, 0, 1, 2, 4).flatten(-2)
