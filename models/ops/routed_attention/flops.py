"""Floating-point operations of attention inside clusters, as the chunked forms compute it."""

from __future__ import annotations

from models.ops.flops import Flops, attention_flops, product_flops, window_flops


def routed_flops(time: int, window: int, width: int, clusters: int) -> Flops:
    """A window over the sorted rows, `width` over all routed heads, and the products with the centroids, forward alone."""
    return window_flops(time, window, width).plus(Flops(product_flops(time * width * clusters).forward, 0.0))


def balanced_flops(time: int, width: int, clusters: int) -> Flops:
    """Attention over all pairs for each cluster, and the products with the centroids."""
    choice = Flops(product_flops(time * width * clusters).forward, 0.0)
    return attention_flops(time, time, width).times(clusters).plus(choice)
