"""A prefix that is asked by a query of its own, in forms of softmax attention that have one query for all keys."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Prefix = tuple[Tensor, Tensor]


def two_queries(form: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorates `form(q, k, v, window=.., prefix=..)`: it takes a `prefix_query` too, on twice the channels.

    The first half of them is zero in the prefix, the second in the text.
    """

    @functools.wraps(form)
    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        window: int | None = None,
        prefix: Prefix | None = None,
        prefix_query: Tensor | None = None,
    ) -> Tensor:
        if prefix is None or prefix_query is None:
            return form(q, k, v, window=window, prefix=prefix)
        head, width = q.shape[-1], v.shape[-1]
        q = torch.cat([q, prefix_query], -1) * math.sqrt(2)  # the scale of the doubled width taken back
        k, v = F.pad(k, (0, head)), F.pad(v, (0, head))  # torch's kernels want one width
        prefix = F.pad(prefix[0], (head, 0)), F.pad(prefix[1], (0, head))
        return form(q, k, v, window=window, prefix=prefix)[..., :width]

    return run
