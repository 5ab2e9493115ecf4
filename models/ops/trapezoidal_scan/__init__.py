"""Mamba-3's scan: a state written by the trapezoidal rule, keys and queries turned. `trapezoidal_scan(q, k, v, *, ...)`."""

from models.ops.providers import Operation

trapezoidal_scan = Operation(
    "trapezoidal",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "by_scan:chunked",
        "native": "by_scan:native",
        "fla": "by_scan:fla",
        "mamba-ssm": "mamba_ssm:trapezoidal_scan",
    },
    slower={"native": "by_scan:native_is_slower"},
)
