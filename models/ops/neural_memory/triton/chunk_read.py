"""Triton kernels of what every chunk does by itself: the two scans over its gates, and what its tokens read; and back.

The table A and its momenta P are as in `../gate_table.py` (the rate is left to E), [chunks, size + 1, size +
2]: sums of products in [0, 1], by running scans. A read is `y = A[.,M] Q M + A[.,S] Q S + (Q K^T o A) E`, one program per
chunk. `size` tokens are padded to the power of two BLOCK_C, head widths to BLOCK_D (in) and whole blocks of BLOCK_V (out);
sums are float32, whatever the inputs are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.ops.neural_memory.triton.tiles import tile


@triton.jit
def scan(eta_ptr, gamma_ptr, a_ptr, p_ptr, size, BLOCK: tl.constexpr):
    """`P[t] = eta_t P[t-1] + 1_t`, `A[t] = gamma_t A[t-1] + P[t]` of one chunk, a row at a time."""
    chunk = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < size + 2
    a = tl.where(columns == 0, 1.0, 0.0)
    p = tl.where(columns == 1, 1.0, 0.0)
    row = chunk * (size + 1) * (size + 2) + columns
    tl.store(a_ptr + row, a, mask=inside)
    tl.store(p_ptr + row, p, mask=inside)
    for t in range(size):
        row += size + 2
        p = p * tl.load(eta_ptr + chunk * size + t) + tl.where(columns == t + 2, 1.0, 0.0)
        a = a * tl.load(gamma_ptr + chunk * size + t) + p
        tl.store(a_ptr + row, a, mask=inside)
        tl.store(p_ptr + row, p, mask=inside)


@triton.jit
def scan_backward(
    eta_ptr, gamma_ptr, a_ptr, p_ptr, d_a_ptr, d_p_ptr, d_eta_ptr, d_gamma_ptr, size, BLOCK: tl.constexpr
):
    chunk = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < size + 2
    row = chunk * (size + 1) * (size + 2) + size * (size + 2) + columns
    d_a = tl.load(d_a_ptr + row, mask=inside, other=0.0)
    d_p = tl.load(d_p_ptr + row, mask=inside, other=0.0)
    for back in range(size):
        gate = chunk * size + size - 1 - back
        row -= size + 2
        d_p += d_a
        tl.store(d_eta_ptr + gate, tl.sum(d_p * tl.load(p_ptr + row, mask=inside, other=0.0), 0))
        tl.store(d_gamma_ptr + gate, tl.sum(d_a * tl.load(a_ptr + row, mask=inside, other=0.0), 0))
        d_p = d_p * tl.load(eta_ptr + gate) + tl.load(d_p_ptr + row, mask=inside, other=0.0)
        d_a = d_a * tl.load(gamma_ptr + gate) + tl.load(d_a_ptr + row, mask=inside, other=0.0)


@triton.jit
def _shares(rows, token, size):
    """What the tokens read of M, of S, and of one another's writes: their rows of A."""
    there = token < size
    a = tl.load(rows[:, None] + 2 + token[None, :], mask=there[:, None] & there[None, :], other=0.0)
    return tl.load(rows, mask=there, other=0.0), tl.load(rows + 1, mask=there, other=0.0), a


@triton.jit
def read(
    q_ptr,
    k_ptr,
    e_ptr,
    m_ptr,
    s_ptr,
    table_ptr,
    y_ptr,
    size,
    width,
    out,
    FIRST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """FIRST is the table's row that the first token reads: 1, or 0 before its own write."""
    chunk = tl.program_id(0).to(tl.int64)
    c, d = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    v = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    at, here = tile(c, d, size, width)
    at += chunk * size * width
    q = tl.load(q_ptr + at, mask=here, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + at, mask=here, other=0.0).to(tl.float32)
    rows = table_ptr + chunk * (size + 1) * (size + 2) + (c + FIRST) * (size + 2)
    a_m, a_s, a = _shares(rows, c, size)
    state, stored = tile(d, v, width, out)
    state += chunk * width * out
    m = tl.load(m_ptr + state, mask=stored, other=0.0)
    s = tl.load(s_ptr + state, mask=stored, other=0.0)
    written, wrote = tile(c, v, size, out)
    written += chunk * size * out
    e = tl.load(e_ptr + written, mask=wrote, other=0.0)
    y = tl.dot(q * a_m[:, None], m, input_precision=PRECISION)
    y = tl.dot(q * a_s[:, None], s, y, input_precision=PRECISION)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * a
    y = tl.dot(scores, e, y, input_precision=PRECISION)
    tl.store(y_ptr + written, y, mask=wrote)


@triton.jit
def read_backward(
    q_ptr,
    k_ptr,
    e_ptr,
    m_ptr,
    s_ptr,
    table_ptr,
    d_y_ptr,
    d_q_ptr,
    d_k_ptr,
    d_e_ptr,
    d_m_ptr,
    d_s_ptr,
    d_table_ptr,
    size,
    width,
    out,
    FIRST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Back over `read`, block by block of the output's width; the table's row that no token reads is not written."""
    chunk = tl.program_id(0).to(tl.int64)
    c, d = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    token = c < size
    at, here = tile(c, d, size, width)
    at += chunk * size * width
    q = tl.load(q_ptr + at, mask=here, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + at, mask=here, other=0.0).to(tl.float32)
    row = chunk * (size + 1) * (size + 2) + (c + FIRST) * (size + 2)
    a_m, a_s, a = _shares(table_ptr + row, c, size)
    products = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    scores = tl.trans(products * a)
    d_a = tl.zeros((BLOCK_C, BLOCK_C), tl.float32)
    d_q = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
    d_a_m = tl.zeros((BLOCK_C,), tl.float32)
    d_a_s = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, out, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        written, wrote = tile(c, v, size, out)
        written += chunk * size * out
        state, stored = tile(d, v, width, out)
        state += chunk * width * out
        d_y = tl.load(d_y_ptr + written, mask=wrote, other=0.0).to(tl.float32)
        e = tl.load(e_ptr + written, mask=wrote, other=0.0)
        d_a = tl.dot(d_y, tl.trans(e), d_a, input_precision=PRECISION)
        m = tl.load(m_ptr + state, mask=stored, other=0.0)
        pulled = tl.dot(d_y, tl.trans(m), input_precision=PRECISION)
        d_q += pulled * a_m[:, None]
        d_a_m += tl.sum(pulled * q, 1)
        s = tl.load(s_ptr + state, mask=stored, other=0.0)
        pulled = tl.dot(d_y, tl.trans(s), input_precision=PRECISION)
        d_q += pulled * a_s[:, None]
        d_a_s += tl.sum(pulled * q, 1)
        d_m = tl.dot(tl.trans(q * a_m[:, None]), d_y, input_precision=PRECISION)
        tl.store(d_m_ptr + state, d_m, mask=stored)
        d_s = tl.dot(tl.trans(q * a_s[:, None]), d_y, input_precision=PRECISION)
        tl.store(d_s_ptr + state, d_s, mask=stored)
        tl.store(d_e_ptr + written, tl.dot(scores, d_y, input_precision=PRECISION), mask=wrote)
    tl.store(d_table_ptr + row, d_a_m, mask=token)
    tl.store(d_table_ptr + row + 1, d_a_s, mask=token)
    pair = token[:, None] & token[None, :]
    tl.store(d_table_ptr + row[:, None] + 2 + c[None, :], d_a * products, mask=pair)
    d_a = d_a * a
    d_q = tl.dot(d_a, k, d_q, input_precision=PRECISION)
    tl.store(d_q_ptr + at, d_q, mask=here)
    tl.store(d_k_ptr + at, tl.dot(tl.trans(d_a), q, input_precision=PRECISION), mask=here)
