"""A gated network trained chunk by chunk: `fast_weights(q, k, v, *, rates, momentum, weights, chunk, muon, state, provider)`."""

from models.ops.providers import Operation

fast_weights = Operation(
    "fast weights",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "native": "native:native"},
)
