"""Linear systems that are the same at every token, as causal convolutions.

`convolution(x, forget, write, read, erase, state)`, and `liquid(x, forget, write, read, degree, state)` whose inputs multiply.
"""

from models.ops.providers import Operation

convolution = Operation(
    "convolution",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "native": "native:native"},
)
liquid = Operation(
    "liquid convolution",
    __name__,
    {"recurrence": "liquid_recurrence:recurrence", "chunked": "liquid_chunked:chunked", "native": "native:liquid"},
)
