"""The delta rule with keys of its own for comparing, erasing and writing, and forgetting per key channel.

`erase_and_write(q, compare, write, v, *, log_forget, erase, before, state, provider)`.
"""

from models.ops.providers import Operation

erase_and_write = Operation(
    "erase and write",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked:chunked",
        "native": "native:native",
        "fla": "fla:erase_and_write",
    },
)
