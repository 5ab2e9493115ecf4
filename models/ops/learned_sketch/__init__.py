"""Learned sketches of many small vectors: `learned_sketch(x, up, down, next_up, next_down, provider=...)`, without a state."""

from models.ops.providers import Operation

learned_sketch = Operation(
    "learned sketch",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "native": "native:native"},
)
