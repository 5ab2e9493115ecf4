"""Recurrent cells, whose gates read their own last output. `recurrent_cell(x, weight, recurrent, cell="lstm", provider)`."""

from models.ops.providers import Operation

recurrent_cell = Operation(
    "recurrent cell",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "native": "native:native"},
    slower={"native": "native:is_slower"},
)
