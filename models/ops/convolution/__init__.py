"""A linear system, the same at every token, as a causal convolution. `convolution(x, forget, write, read, erase, state)`."""

from models.ops.providers import Operation

convolution = Operation("convolution", __name__, {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked"})
