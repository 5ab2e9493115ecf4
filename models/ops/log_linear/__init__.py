"""Log-linear attention: states of growing age, each read with a weight of its own. `log_linear(q, k, v, weights, ...)`."""

from models.ops.providers import Operation

log_linear = Operation(
    "log-linear",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked:chunked",
        "native": "native:native",
        "fla": "fla:log_linear",
    },
)
