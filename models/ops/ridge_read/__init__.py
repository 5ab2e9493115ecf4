"""The read of a ridge regression: `ridge_read(q, k, v, *, log_forget, rate, ridge, steps, state, provider)`."""

from models.ops.providers import Operation

ridge_read = Operation(
    "ridge read",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "native": "native:native"},
    {
        "fla": "its kernels of MesaNet round q and k to float16, and the states between chunks to bfloat16, in float32 too"
    },
)
