"""Triton kernels of the matrix memory's loop over its chunks, and back: one program per head and block of output columns.

    E = U - Y [M; S],     M <- g M + c S + K^T (A o E),     S <- p S + K^T (P o E)

M and S stay in registers from the first chunk to the last; their columns do not depend on one another. `ends` holds the rows
(A, P) of each chunk's end, [chunks, 2, size + 2]: g and c, then A; nothing and p, then P. With JOINED several anchors share a
chunk, and Y has columns for S too. The tensors are those of `autograd.py`, heads before chunks; sums
are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.ops.neural_memory.triton.tiles import chunk_end, tile


@triton.jit
def chunk_loop(
    u_ptr,
    y_ptr,
    k_ptr,
    ends_ptr,
    m_ptr,
    s_ptr,
    e_ptr,
    starts_m_ptr,
    starts_s_ptr,
    last_m_ptr,
    last_s_ptr,
    chunks,
    size,
    width,
    out,
    JOINED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head = tl.program_id(0).to(tl.int64)
    c, d = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    v = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    state, stored = tile(d, v, width, out)
    at, here = tile(c, d, size, width)
    written, wrote = tile(c, v, size, out)
    stride_y = width * 2 if JOINED else width
    compared = c[:, None] * stride_y + d[None, :]
    m = tl.load(m_ptr + head * width * out + state, mask=stored, other=0.0)
    s = tl.load(s_ptr + head * width * out + state, mask=stored, other=0.0)
    for n in range(chunks):
        chunk = head * chunks + n
        tl.store(starts_m_ptr + chunk * width * out + state, m, mask=stored)
        tl.store(starts_s_ptr + chunk * width * out + state, s, mask=stored)
        e = tl.load(u_ptr + chunk * size * out + written, mask=wrote, other=0.0)
        y = tl.load(y_ptr + chunk * size * stride_y + compared, mask=here, other=0.0)
        e -= tl.dot(y, m, input_precision=PRECISION)
        if JOINED:
            y = tl.load(y_ptr + chunk * size * stride_y + width + compared, mask=here, other=0.0)
            e -= tl.dot(y, s, input_precision=PRECISION)
        tl.store(e_ptr + chunk * size * out + written, e, mask=wrote)
        g, f, p, a, b = chunk_end(ends_ptr, chunk, size, c)
        k = tl.load(k_ptr + chunk * size * width + at, mask=here, other=0.0)
        k = tl.trans(k.to(tl.float32))
        m = tl.dot(k, e * a, m * g + s * f, input_precision=PRECISION)
        s = tl.dot(k, e * b, s * p, input_precision=PRECISION)
    tl.store(last_m_ptr + head * width * out + state, m, mask=stored)
    tl.store(last_s_ptr + head * width * out + state, s, mask=stored)


@triton.jit
def chunk_loop_backward(
    y_ptr,
    k_ptr,
    ends_ptr,
    d_e_ptr,
    d_starts_m_ptr,
    d_starts_s_ptr,
    d_last_m_ptr,
    d_last_s_ptr,
    d_u_ptr,
    after_m_ptr,
    after_s_ptr,
    d_m_ptr,
    d_s_ptr,
    chunks,
    size,
    width,
    out,
    JOINED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Whole gradients of U, of M and S after each chunk, and of the first M and S; all others follow chunk by chunk."""
    head = tl.program_id(0).to(tl.int64)
    c, d = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    v = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    state, stored = tile(d, v, width, out)
    at, here = tile(c, d, size, width)
    written, wrote = tile(c, v, size, out)
    stride_y = width * 2 if JOINED else width
    compared = c[:, None] * stride_y + d[None, :]
    d_m = tl.load(d_last_m_ptr + head * width * out + state, mask=stored, other=0.0)
    d_s = tl.load(d_last_s_ptr + head * width * out + state, mask=stored, other=0.0)
    for back in range(chunks):
        chunk = head * chunks + chunks - 1 - back
        tl.store(after_m_ptr + chunk * width * out + state, d_m, mask=stored)
        tl.store(after_s_ptr + chunk * width * out + state, d_s, mask=stored)
        g, f, p, a, b = chunk_end(ends_ptr, chunk, size, c)
        k = tl.load(k_ptr + chunk * size * width + at, mask=here, other=0.0)
        k = k.to(tl.float32)
        d_e = tl.load(d_e_ptr + chunk * size * out + written, mask=wrote, other=0.0)
        d_e = tl.dot(k * a, d_m, d_e, input_precision=PRECISION)
        d_e = tl.dot(k * b, d_s, d_e, input_precision=PRECISION)
        tl.store(d_u_ptr + chunk * size * out + written, d_e, mask=wrote)
        d_s = d_m * f + d_s * p + tl.load(d_starts_s_ptr + chunk * width * out + state, mask=stored, other=0.0)
        d_m = d_m * g + tl.load(d_starts_m_ptr + chunk * width * out + state, mask=stored, other=0.0)
        y = tl.load(y_ptr + chunk * size * stride_y + compared, mask=here, other=0.0)
        d_m -= tl.dot(tl.trans(y), d_e, input_precision=PRECISION)
        if JOINED:
            y = tl.load(y_ptr + chunk * size * stride_y + width + compared, mask=here, other=0.0)
            d_s -= tl.dot(tl.trans(y), d_e, input_precision=PRECISION)
    tl.store(d_m_ptr + head * width * out + state, d_m, mask=stored)
    tl.store(d_s_ptr + head * width * out + state, d_s, mask=stored)
