"""Softmax attention inside clusters of tokens: each token in its nearest cluster, or each cluster with its nearest tokens.

`routed_attention(q, k, v, cluster, *, clusters, window, scale, state, provider)` lets a token see the last `window` tokens of its
cluster. `balanced_attention(q, k, v, closeness, *, window, scale, state, provider)` gives every cluster the `window` closest.
"""

from models.ops.providers import Operation

routed_attention = Operation(
    "routed attention", __name__, {"recurrence": "recurrence:routed", "chunked": "routed_chunked:chunked"}
)
balanced_attention = Operation(
    "balanced attention", __name__, {"recurrence": "recurrence:balanced", "chunked": "balanced_chunked:chunked"}
)
