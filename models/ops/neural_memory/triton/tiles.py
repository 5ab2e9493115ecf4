"""Where the parts of one chunk lie in the tensors that the Triton kernels read and write."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile(rows, columns, height, width):
    """Places of rows and columns in a tensor [height, width], and which of them are there."""
    return rows[:, None] * width + columns[None, :], (rows < height)[:, None] & (columns < width)[None, :]


@triton.jit
def chunk_end(ends_ptr, chunk, size, token):
    """What a chunk's end, rows (A, P) of [2, size + 2], says of the states: g, c, p; and of its tokens: columns of A and of P."""
    row = ends_ptr + chunk * 2 * (size + 2)
    g, f, p = tl.load(row), tl.load(row + 1), tl.load(row + size + 3)
    onto_memory = tl.load(row + 2 + token, mask=token < size, other=0.0)
    onto_surprise = tl.load(row + size + 4 + token, mask=token < size, other=0.0)
    return g, f, p, onto_memory[:, None], onto_surprise[:, None]
