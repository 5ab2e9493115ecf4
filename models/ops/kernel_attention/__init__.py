"""Attention whose weights are a kernel of positive features, so that a sum stands for the past: one function for six models.

`kernel_attention(q, k, v, kernel=...)`: linear attention, Based, ReBased, Performer;
`block_attention(...)`: exact inside blocks, a sum for the blocks before (PolySketchFormer);
`window_and_kernel(...)`: exact in a window, a sum for what has left it (Scatterbrain).
"""

from models.ops.providers import Operation

kernel_attention = Operation(
    "kernel attention",
    __name__,
    {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked", "fla": "fla:kernel_attention"},
    lacks={"native": "the compiled scan is the slower where values have a column of ones behind them"},
)
block_attention = Operation(
    "block and kernel attention",
    __name__,
    {"recurrence": "block_recurrence:recurrence", "chunked": "block_chunked:chunked"},
)
window_and_kernel = Operation(
    "window and kernel attention",
    __name__,
    {"recurrence": "window_recurrence:recurrence", "chunked": "window_chunked:chunked"},
)
