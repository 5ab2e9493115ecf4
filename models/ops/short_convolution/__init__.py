"""The short causal convolution along time. `short_convolution(x, weight, bias, state, provider)`."""

from models.ops.providers import Operation

short_convolution = Operation(
    "short convolution",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked:chunked",
        "native": "native:native",
        "causal-conv1d": "causal_conv1d:convolution",
    },
    slower={"native": "native:is_slower"},
)
