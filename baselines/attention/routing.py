"""Routing Transformer: half of the heads see a window, the others tokens of their own cluster, found by k-means in training.

Roy, Saffar, Vaswani, Grangier 2021, arXiv 2003.05997. A routed head has one projection for queries and keys:

    n_t = LayerNorm(W_r x_t)  (no gain, no bias),   c(t) = argmax_c n_t . mu_c,   y_t = softmax(R n_t . R n_s) v_s
    over the last `window` tokens s <= t with c(s) = c(t),   out = W_o [local heads | routed heads]

scores unscaled, as in the authors' code (google-research, routing_transformer); `scaled` divides them by sqrt(d). R is rotary.
`select="balanced"` is the authors' other half, their decoding path made exact: every cluster has the `window` tokens of the text
so far that are closest to it (cosines in steps of 2^-12, ties to the earlier); a token among them when it comes reads there, and
its output is the sum over its clusters divided by their number + 0.01. It costs t^2 for each cluster: for short texts.

The centroids mu [h, k, d] learn without a gradient. Each is the direction of an exponential mean (`decay`) of the sums of its
members n / |n|, over all rows of a training batch; one that nobody chose stays. They move when a backward pass reaches W_r, thus
where an optimiser is about to step, and never in a forward pass. Begin: LayerNorm of a Gaussian; all weights N(0, 1 / fan in),
the output's half as wide. A choice is computed in at least float32, its projection too.

Deviations: which tokens a cluster takes depends on later ones in the paper's training, so here a token chooses its cluster
(`reading`); rotary positions (theirs: relative embeddings of the place inside the sorted cluster); no commitment loss (1e-4 of a
loss); members and centroids of length 1, as in the package routing-transformer; decay 0.99 for runs of some thousand steps
(theirs 0.999); 8 clusters and a window of 32 (theirs 8 and 512 at 4,096 tokens), which is the local heads' too.

Speed: a training step of the layer on one thread of a CPU (width 128, four heads) takes 1.1 times that of full attention at 256
tokens, 0.75 times at 512 and 0.35 times at 2,048; `select="balanced"` 6 times at 256 and 16 times at 512.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.attention.online_clusters import OnlineClusters
from models.attention import window_attention
from models.law import Law
from models.layers import at_least_float32, rotary, split_heads
from models.ops.flops import Flops, window_flops
from models.ops.routed_attention import balanced_attention, routed_attention
from models.ops.routed_attention.flops import balanced_flops, routed_flops
from models.ops.softmax_attention import windowed_attention
from models.registry import register

GRID = 2**12  # steps of closeness: two tokens alike are equally close, however rounding falls


@register(
    "routing",
    paper="Roy et al. 2021, arXiv 2003.05997",
    equation="y_t = softmax(n_t . n_s) V over the last `window` s with c(s) = c(t),  c = argmax n . mu;  half of the heads local",
)
class Routing(nn.Module):
    """The routing layer. State: each cluster's last keys and values and their number, the local heads' window, the place."""

    fixed_state = True
    state_setting = "window"
    law = Law(
        forget="all but each cluster's last w",
        compare="-",
        write="k, v, under argmax n . mu",
        read="softmax in the cluster",
    )
    reading = (
        "A token attends in the cluster that it is nearest to; the paper's clusters choose among later tokens too."
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        routed: int | None = None,
        clusters: int = 8,
        window: int = 32,
        select: Literal["nearest", "balanced"] = "nearest",
        scaled: bool = False,
        decay: float = 0.99,
        provider: str = "auto",
    ):
        """`inner` is the width of queries and values over all heads, the model's by default; `routed` heads, or half of all."""
        super().__init__()
        inner, routed = width if inner is None else inner, (heads + 1) // 2 if routed is None else routed
        if select not in ("nearest", "balanced"):
            raise ValueError(f"Unknown select '{select}'; choose nearest or balanced.")
        if inner % (2 * heads) or not 1 <= routed <= heads:
            raise ValueError(
                f"Routing needs an even width per head ({inner} / {heads}) and 1 <= routed <= {heads}, not {routed}."
            )
        if clusters < 1 or window < 1 or not 0 <= decay <= 1:
            raise ValueError(
                f"Routing needs clusters >= 1, window >= 1 and decay in [0, 1], not {clusters}, {window}, {decay}."
            )
        self.heads, self.routed, self.window, self.period = heads, routed, window, window
        self.select, self.provider, head = select, provider, inner // heads
        self.local_provider = provider if provider in windowed_attention.forms else "auto"
        self.scale = head**-0.5 if scaled else 1.0
        self.local = nn.Linear(width, 3 * (heads - routed) * head, bias=False) if routed < heads else None
        self.route, self.value = (nn.Linear(width, routed * head, bias=False) for _ in range(2))
        self.out = nn.Linear(inner, width, bias=False)
        for layer in (self.local, self.route, self.value, self.out):
            if layer is not None:
                nn.init.normal_(layer.weight, std=(0.5 if layer is self.out else 1.0) * layer.in_features**-0.5)
        self.clusters = OnlineClusters(routed, clusters, head, decay)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        members, past, place = (None, None, 0) if state is None else state
        y, members = self._routed(x, members, place)
        if self.local is not None:
            q, k, v = (split_heads(part, self.heads - self.routed) for part in self.local(x).chunk(3, dim=-1))
            z, past = window_attention(
                rotary(q, place), rotary(k, place), v, self.window, past, provider=self.local_provider
            )
            y = torch.cat([z, y.to(z.dtype)], 2)
        return self.out(y.flatten(2)), (members, past, place + x.shape[1])

    def _routed(self, x: Tensor, members: tuple | None, place: int) -> tuple[Tensor, tuple]:
        """What the routed heads read [b, t, h, d], and the clusters' members."""
        v = split_heads(self.value(x), self.routed)
        with torch.autocast(x.device.type, enabled=False):
            x = at_least_float32(x)
            n = split_heads(F.linear(x, self.route.weight.to(x.dtype)), self.routed)
            n = F.layer_norm(n, n.shape[-1:])
            closeness = self.clusters(n, self.route.weight)
        key = rotary(n, place).to(v.dtype)
        given: dict[str, Any] = {
            "window": self.window,
            "scale": self.scale,
            "state": members,
            "provider": self.provider,
        }
        if self.select == "balanced":
            return balanced_attention(key, key, v, (closeness * GRID).round().long(), **given)
        return routed_attention(key, key, v, closeness.argmax(-1), clusters=closeness.shape[-1], **given)

    def flops(self, time: int) -> Flops:
        """Of the routed heads by their formula and of the local ones in blocks."""
        width, clusters = self.route.out_features, self.clusters.centroids.shape[1]
        local = window_flops(time, self.window, self.out.in_features - width)
        if self.select == "balanced":
            return local.plus(balanced_flops(time, width, clusters))
        return local.plus(routed_flops(time, self.window, width, clusters))
