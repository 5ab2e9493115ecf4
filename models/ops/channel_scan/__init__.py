"""A Mamba block over the pieces of a token's channels, both ways: `channel_scan(x, forwards, backwards, provider)`."""

from models.ops.providers import Operation

channel_scan = Operation(
    "channel scan",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked:chunked",
        "native": "native:native",
        "mamba-ssm": "mamba_ssm:channel_scan",
    },
)
