"""The matrix state's law: forget, compare, write, read. `scan(q, k, v, *, log_forget, rate, compare, state, provider)`."""

from models.ops.providers import Operation

scan = Operation(
    "scan",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked:chunked",
        "native": "native:native",
        "fla": "fla:scan",
        "mamba-ssm": "mamba_ssm:scan",
        "vllm-cpu": "vllm_cpu:scan",
    },
    slower={"native": "native:is_slower"},
)
