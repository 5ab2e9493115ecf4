"""K-means that learns while a model trains: centroids in buffers, moved by an exponential mean behind each backward pass."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class OnlineClusters(nn.Module):
    """Centroids [h, k, d] of length 1, and how close tokens are to them: n [b, t, h, d] -> cosines [b, t, h, k].

    A forward pass in training with gradients notes the members of each cluster; the centroids move when the gradient of the
    weight that made n has been accumulated, which `loss.backward()` does and `torch.autograd.grad` does not. So no output of a
    batch depends on another row, and nothing moves because a text was read.
    """

    def __init__(self, heads: int, clusters: int, width: int, decay: float):
        super().__init__()
        self.decay, self._heard = decay, 0
        mean = F.normalize(F.layer_norm(torch.randn(heads, clusters, width), (width,)), dim=-1)
        self.register_buffer("centroids", mean)
        self.register_buffer("sums", mean.clone())  # exponential means of member sums
        self.register_buffer("pending", torch.zeros_like(mean), persistent=False)

    def forward(self, n: Tensor, weight: Tensor) -> Tensor:
        listens = self.training and torch.is_grad_enabled() and weight.is_leaf and weight.requires_grad
        with torch.no_grad():
            n = F.normalize(n, dim=-1)
            closeness = torch.einsum("bthd,hkd->bthk", n, self.centroids.to(n.dtype))
            if listens:
                own = F.one_hot(closeness.argmax(-1), closeness.shape[-1]).to(n.dtype)
                self.pending += torch.einsum("bthd,bthk->hkd", n, own)
        if listens and self._heard != id(
            weight
        ):  # a copied or sharded model has other weights, which no hook hears yet
            this = weakref.ref(self)
            weight.register_post_accumulate_grad_hook(lambda _: this() and this().fold())
            self._heard = id(weight)
        return closeness

    @torch.no_grad()
    def fold(self) -> None:
        """Move the centroids by what is pending, over the rows of all processes that train together."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.pending)
        chosen = self.pending.any(-1, keepdim=True)
        self.sums.copy_(torch.where(chosen, self.sums.lerp(self.pending, 1 - self.decay), self.sums))
        self.centroids.copy_(F.normalize(self.sums, dim=-1))
        self.pending.zero_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._heard = 0  # hooks are not copied with a module
