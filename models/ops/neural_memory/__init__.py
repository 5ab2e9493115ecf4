"""Titans' memory: gradient steps with momentum and forgetting. `linear_memory(...)` of one matrix, `deep_memory(...)` of more."""

from models.ops.providers import Operation

linear_memory = Operation(
    "linear memory",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked_linear:chunked",
        "native": "native:native",
        "triton": "triton.forms:linear",
    },
    lacks={"fla": "its Titans and its delta rule with momentum are plain PyTorch"},
    slower={"native": "native:is_slower"},
)
deep_memory = Operation(
    "deep memory",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked_deep:chunked",
        "native": "native:native",
        "triton": "triton.forms:deep",
    },
    slower={"native": "native:is_slower"},
)
