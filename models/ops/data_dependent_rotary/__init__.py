"""Queries and keys turned by angles that the text itself adds up: `data_dependent_rotary(q, k, .., angle=.., provider=..)`."""

from models.ops.providers import Operation

data_dependent_rotary = Operation(
    "data-dependent rotary",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "native": "native:native"},
)
