"""Memories after Titans: other losses and ways of retaining, `retention_memory(...)`; steps on a window, `window_memory(...)`."""

from models.ops.associative_memory.features import polynomial_features as polynomial_features
from models.ops.providers import Operation

retention_memory = Operation(
    "retention memory",
    __name__,
    {
        "recurrence": "retention_recurrence:recurrence",
        "chunked": "retention_chunked:chunked",
        "native": "native.retention:native",
    },
)
window_memory = Operation(
    "window memory",
    __name__,
    {
        "recurrence": "window_recurrence:recurrence",
        "chunked": "window_chunked:chunked",
        "native": "native.window:native",
    },
)
