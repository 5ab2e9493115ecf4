"""Test-time training: a small network's weights are the state. `test_time_training(...)`."""

from models.ops.providers import Operation

test_time_training = Operation(
    "test-time training",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "native": "native:native"},
    lacks={"fla": "fla's kernel has no rate of the token that writes, and its read adds z to LN(z), not q"},
)
