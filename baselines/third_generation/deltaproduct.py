"""DeltaProduct and Gated DeltaProduct: several steps of the delta rule a token, so that a state can be rotated.

Siems et al. 2025, arXiv 2502.10297, with the layer of flash-linear-attention (0.6.0):

    S <- a S (gated only),   then for j = 1 .. n:  S <- S + b_j k_j (v_j - S^T k_j)^T,   y = S^T q
    a = exp(-exp(A_log) softplus(W_a x + bias)), b_j = 2 sigmoid(W_j x);   out = W_o ( norm_h(y) * silu(W_g x) )

q, k_j = l2(silu(conv(W x))), v_j = silu(conv(W_v x)) of twice the width, q scaled by d_k^-1/2; the convolution runs over all n
keys and values of a token before they become rows of their own. Rates in (0, 2) give eigenvalues down to -1
(`negative_eigenvalues`; Grazzi et al. 2024, arXiv 2411.12537), and n of these reflections any rotation in n dimensions.

The scan reads n rows a token: the first forgets, the last is asked. The authors shrink heads until parameters match; here the
inner width is by default that at which the layer has Gated DeltaNet's 6 width^2 parameters.

Deviations: exp(A_log) is drawn from 0.001 to 16, theirs from 0, whose logarithm is not finite; linear maps stay as `nn.Linear`
draws them, like Gated DeltaNet's here, where the authors' first code drew them xavier with gain 2^-5/2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, at_least_float32, l2_norm, split_heads, step_bias
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register


class Product(nn.Module):
    """Both layers. State: the convolution's last inputs and S [b, h, k, v]."""

    period = 64  # no chunk of the scan is longer
    fixed_state = True

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None,
        steps: int,
        kernel: int,
        negative_eigenvalues: bool,
        provider: str,
    ):
        super().__init__()
        if steps < 1:
            raise ValueError(f"DeltaProduct needs at least one step a token, not steps={steps}.")
        inner = max(1, 6 * width // ((5 + 3 * steps) * heads)) * heads if inner is None else inner
        if inner % heads:
            raise ValueError(f"The inner width {inner} must be a multiple of the {heads} heads; change inner or heads.")
        self.heads, self.steps, self.provider = heads, steps, provider
        self.highest_rate = 2.0 if negative_eigenvalues else 1.0
        self.widths = [inner, steps * inner, 2 * steps * inner]
        self.qkv = nn.Linear(width, sum(self.widths), bias=False)
        self.convolution = ShortConvolution(sum(self.widths), kernel, provider=provider)
        self.rate = nn.Linear(width, steps * heads, bias=False)
        self.gate = nn.Linear(width, 2 * inner, bias=False)
        self.norm = RMSNorm(2 * inner // heads, eps=1e-5)
        self.out = nn.Linear(2 * inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, matrix = (None, None) if state is None else state
        qkv, tail = self.convolution(self.qkv(x), tail)
        q, k, v = F.silu(qkv).split(self.widths, dim=-1)
        q, k, v = split_heads(q, self.heads), self._rows(k), self._rows(v)
        q = F.pad((l2_norm(q) * q.shape[-1] ** -0.5)[:, :, None], (0, 0, 0, 0, self.steps - 1, 0))
        y, matrix = scan(
            q.flatten(1, 2),  # zeros before a token's last row
            l2_norm(k),
            v,
            log_forget=self.log_forget(x),
            rate=self.highest_rate * self._rows(at_least_float32(self.rate(x))).squeeze(-1).sigmoid(),
            compare=True,
            state=matrix,
            provider=self.provider,
        )
        y = self.norm(y[:, self.steps - 1 :: self.steps]).flatten(2) * F.silu(self.gate(x))
        return self.out(y), (tail, matrix)

    def _rows(self, x: Tensor) -> Tensor:
        """[b, t, n * h * d] -> [b, t * n, h, d]."""
        return x.unflatten(-1, (self.steps, self.heads, -1)).flatten(1, 2)

    def log_forget(self, x: Tensor) -> Tensor | None:
        """Logarithms of the gates of all rows [b, t * n, h]; None where nothing is forgotten."""
        return None

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        keys = self.widths[0] // self.heads
        return scan_flops(self.steps * time, self.heads, keys, 2 * keys, compare=True)


@register(
    "deltaproduct",
    paper="Siems et al. 2025, arXiv 2502.10297",
    equation="n times:  S <- S + b_j k_j (v_j - S^T k_j)^T;  y = S^T q",
)
class DeltaProduct(Product):
    """The layer without a gate on its state."""

    law = Law(
        forget="-",
        compare="S^T k_j, n times a token",
        write="b_j k_j (v_j - S^T k_j)^T, n times",
        read="S^T q",
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        steps: int = 2,
        kernel: int = 4,
        negative_eigenvalues: bool = True,
        provider: str = "auto",
    ):
        """`inner` is the width of one step's keys over all heads, values have twice that; `steps` is n."""
        super().__init__(width, heads, inner, steps, kernel, negative_eigenvalues, provider)


@register(
    "gated-deltaproduct",
    paper="Siems et al. 2025, arXiv 2502.10297",
    equation="S <- a S;  n times:  S <- S + b_j k_j (v_j - S^T k_j)^T;  y = S^T q",
)
class GatedDeltaProduct(Product):
    """The layer whose state first forgets, once a token."""

    law = Law(
        forget="a, per head, from x",
        compare="S^T k_j, n times a token",
        write="b_j k_j (v_j - S^T k_j)^T, n times",
        read="S^T q",
    )
    no_weight_decay = ("A_log", "step_bias")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        steps: int = 2,
        kernel: int = 4,
        negative_eigenvalues: bool = True,
        provider: str = "auto",
    ):
        """`inner` is the width of one step's keys over all heads, values have twice that; `steps` is n."""
        super().__init__(width, heads, inner, steps, kernel, negative_eigenvalues, provider)
        self.step = nn.Linear(width, heads, bias=False)
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1e-3, 16).log())
        self.step_bias = nn.Parameter(step_bias(heads))

    def log_forget(self, x: Tensor) -> Tensor:
        forget = -self.A_log.exp() * F.softplus(at_least_float32(self.step(x)) + self.step_bias)
        return F.pad(forget[:, :, None], (0, 0, 0, self.steps - 1)).flatten(1, 2)  # the other rows forget nothing
