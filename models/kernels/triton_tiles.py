"""Where the parts of one chunk lie in the tensors that the Triton kernels read and write."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile(part, rows, columns, height, width):
    """Places in a tensor [parts, height, width] of one part's rows and columns, and which of them are there."""
    at = part * height * width + rows[:, None] * width + columns[None, :]
    return at, (rows < height)[:, None] & (columns < width)[None, :]


@triton.jit
def chunk_end(ends_ptr, chunk, size, token):
    """The rows (A, P) of a chunk's end, [2, size + 2]: g, c and p, and the shares of A and P of its tokens as columns."""
    row = ends_ptr + chunk * 2 * (size + 2)
    onto_memory = tl.load(row + 2 + token, mask=token < size, other=0.0)
    onto_surprise = tl.load(row + size + 4 + token, mask=token < size, other=0.0)
    return tl.load(row), tl.load(row + 1), tl.load(row + size + 3), onto_memory[:, None], onto_surprise[:, None]
