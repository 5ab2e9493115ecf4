"""The diagonal recurrence, real or complex, `diagonal_scan(a, x, state, provider)`, and one whose gates are outer products.

`outer_scan(u, f, k, e, q, state, provider)` has d * N numbers of state and never writes its gates down.
"""

from models.ops.providers import Operation

diagonal_scan = Operation(
    "diagonal",
    __name__,
    {
        "recurrence": "recurrence:recurrence",
        "chunked": "chunked:chunked",
        "native": "native:native",
        "fla": "fla:diagonal_scan",
    },
)
outer_scan = Operation(
    "diagonal outer",
    __name__,
    {"recurrence": "recurrence:outer_recurrence", "chunked": "outer_chunked:chunked", "native": "outer_native:native"},
    lacks={"fla": "its kernels of HGRN would need every gate written down"},
)
