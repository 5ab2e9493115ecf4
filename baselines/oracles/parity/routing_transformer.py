"""The package routing-transformer as an oracle for online k-means; its attention selects with the whole text in view."""

from __future__ import annotations

import importlib

import torch
from torch.nn import functional as F

from baselines.attention.online_clusters import OnlineClusters
from baselines.oracles.parity.comparison import Comparison, Draw, Errors

PACKAGE = "routing-transformer"
HEADS, CLUSTERS, WIDTH, TIME = 3, 5, 16, 150


def clusters() -> Errors:
    """Which cluster each token takes, how close it is, and the centroids of the batch, one of which nobody chose.

    With a decay of 0: theirs averages directions of sums, ours takes the direction of averaged sums.
    """
    theirs = importlib.import_module("routing_transformer.routing_transformer").Kmeans(HEADS, WIDTH, CLUSTERS, 0.0)
    ours, draw = OnlineClusters(HEADS, CLUSTERS, WIDTH, 0.0), Draw()
    n, weight = draw.normal(2, TIME, HEADS, WIDTH), torch.ones(1, requires_grad=True)
    n[..., 0] = n[..., 0].abs() + 0.1
    with torch.no_grad():
        ours.centroids[:, 0] = ours.sums[:, 0] = F.one_hot(torch.tensor(0), WIDTH) * -1.0
        ours.centroids[:, 1] = ours.sums[:, 1] = F.one_hot(torch.tensor(0), WIDTH) * 1.0
        theirs.means.copy_(ours.centroids)
        theirs.initted.fill_(True)
    found = [ours(n, weight).permute(0, 2, 3, 1)]
    weight.sum().backward()
    right = [theirs(n.transpose(1, 2), update_means=True)[0].mT]
    theirs.update()
    if not torch.equal(found[0].argmax(2), right[0].argmax(2)):
        return Errors(float("inf"), None)
    found.append(ours.centroids)
    right.append(theirs.means)
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, right, strict=True)]
    return Errors(max(errors), None)


COMPARISONS = (Comparison("routing", PACKAGE, "clusters of a batch and their centroids: Kmeans", clusters),)
