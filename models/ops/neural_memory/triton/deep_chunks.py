"""Triton kernels of the two-layer memory's loop over its chunks, and back: one program per head, all four states in registers.

    z = K W_1,   a = s(z),   e_2 = V - a W_2,   e_1 = (e_2 W_2^T) o s'(z)
    W_l <- g W_l + c S_l + x_l^T (A o e_l),   S_l <- p S_l + x_l^T (P o e_l),   x_1 = K, x_2 = a

`shares` [chunks, 2, size + 2] are the rows (A, P) of a chunk's end: g and c, then A theta; nothing and p, then P theta. The
memory's three widths are equal, and a power of two: BLOCK_D. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.ops.neural_memory.triton.tiles import chunk_end


@triton.jit
def _bell(z):
    """Density of the normal distribution."""
    return tl.exp(-0.5 * z * z) * 0.3989422804014327


@triton.jit
def _below(z):
    """The normal distribution's share below z."""
    return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476))


@triton.jit
def _activate(z, GELU: tl.constexpr):
    if GELU:
        return z * _below(z)
    else:
        return z * tl.sigmoid(z)


@triton.jit
def _derivative(z, GELU: tl.constexpr):
    if GELU:
        return _below(z) + z * _bell(z)
    else:
        below = tl.sigmoid(z)
        return below * (1.0 + z * (1.0 - below))


@triton.jit
def _second_derivative(z, GELU: tl.constexpr):
    if GELU:
        return _bell(z) * (2.0 - z * z)
    else:
        below = tl.sigmoid(z)
        return below * (1.0 - below) * (2.0 + z * (1.0 - 2.0 * below))


@triton.jit
def _load_states(ptr, stride, at):
    """The four states, each a stride behind the one before."""
    w1, s1 = tl.load(ptr + at), tl.load(ptr + stride + at)
    return w1, s1, tl.load(ptr + 2 * stride + at), tl.load(ptr + 3 * stride + at)


@triton.jit
def _store_states(ptr, stride, at, w1, s1, w2, s2):
    tl.store(ptr + at, w1)
    tl.store(ptr + stride + at, s1)
    tl.store(ptr + 2 * stride + at, w2)
    tl.store(ptr + 3 * stride + at, s2)


@triton.jit
def chunk_loop(
    k_ptr,
    v_ptr,
    shares_ptr,
    first_ptr,
    z_ptr,
    e1_ptr,
    e2_ptr,
    starts_ptr,
    last_ptr,
    chunks,
    size,
    GELU: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """States are (W_1, S_1, W_2, S_2): first and last [4, heads, d, d], before each chunk [4, heads, chunks, d, d]."""
    head, heads = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    c, d = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    token = c < size
    here = tl.broadcast_to(token[:, None], (BLOCK_C, BLOCK_D))
    square: tl.constexpr = BLOCK_D * BLOCK_D
    state = d[:, None] * BLOCK_D + d[None, :]
    own = head * square + state
    w1, s1, w2, s2 = _load_states(first_ptr, heads * square, own)
    for n in range(chunks):
        chunk = head * chunks + n
        _store_states(starts_ptr, heads * chunks * square, chunk * square + state, w1, s1, w2, s2)
        at = chunk * size * BLOCK_D + c[:, None] * BLOCK_D + d[None, :]
        k = tl.load(k_ptr + at, mask=here, other=0.0).to(tl.float32)
        z = tl.dot(k, w1, input_precision=PRECISION)
        a = _activate(z, GELU)
        e2 = tl.load(v_ptr + at, mask=here, other=0.0).to(tl.float32) - tl.dot(a, w2, input_precision=PRECISION)
        e1 = tl.dot(e2, tl.trans(w2), input_precision=PRECISION) * _derivative(z, GELU)
        tl.store(z_ptr + at, z, mask=here)
        tl.store(e1_ptr + at, e1, mask=here)
        tl.store(e2_ptr + at, e2, mask=here)
        g, f, p, onto_w, onto_s = chunk_end(shares_ptr, chunk, size, c)
        w1 = tl.dot(tl.trans(k), e1 * onto_w, w1 * g + s1 * f, input_precision=PRECISION)
        s1 = tl.dot(tl.trans(k), e1 * onto_s, s1 * p, input_precision=PRECISION)
        w2 = tl.dot(tl.trans(a), e2 * onto_w, w2 * g + s2 * f, input_precision=PRECISION)
        s2 = tl.dot(tl.trans(a), e2 * onto_s, s2 * p, input_precision=PRECISION)
    _store_states(last_ptr, heads * square, own, w1, s1, w2, s2)


@triton.jit
def _write_back(x, e, d_e, d_w, d_s, onto_w, onto_s, PRECISION: tl.constexpr):
    """Back over a layer's write: gradients of x, of e (added to its own), of A theta and of P theta."""
    pulled = tl.dot(x, d_w, input_precision=PRECISION)
    d_e += pulled * onto_w
    d_onto_w = tl.sum(pulled * e, 1)
    pulled = tl.dot(x, d_s, input_precision=PRECISION)
    d_e += pulled * onto_s
    d_onto_s = tl.sum(pulled * e, 1)
    d_x = tl.dot(e * onto_w, tl.trans(d_w), input_precision=PRECISION)
    d_x = tl.dot(e * onto_s, tl.trans(d_s), d_x, input_precision=PRECISION)
    return d_x, d_e, d_onto_w, d_onto_s


@triton.jit
def _errors_back(z, a, e2, w2, d_z, d_a, d_e1, d_e2, d_w2, GELU: tl.constexpr, PRECISION: tl.constexpr):
    """Back over `e_2 = V - a W_2`, `e_1 = (e_2 W_2^T) o s'(z)`, `a = s(z)`: gradients of z, e_2 and W_2, added to their own."""
    derivative = _derivative(z, GELU)
    d_z += d_e1 * tl.dot(e2, tl.trans(w2), input_precision=PRECISION) * _second_derivative(z, GELU)
    d_up = d_e1 * derivative
    d_e2 = tl.dot(d_up, w2, d_e2, input_precision=PRECISION)
    d_w2 = tl.dot(tl.trans(d_up), e2, d_w2, input_precision=PRECISION)
    d_a -= tl.dot(d_e2, tl.trans(w2), input_precision=PRECISION)
    d_w2 -= tl.dot(tl.trans(a), d_e2, input_precision=PRECISION)
    return d_z + d_a * derivative, d_e2, d_w2


@triton.jit
def chunk_loop_backward(
    k_ptr,
    z_ptr,
    e1_ptr,
    e2_ptr,
    starts_ptr,
    shares_ptr,
    d_z_ptr,
    d_e1_ptr,
    d_e2_ptr,
    d_starts_ptr,
    d_last_ptr,
    d_k_ptr,
    d_v_ptr,
    d_writes_ptr,
    after_ptr,
    d_first_ptr,
    chunks,
    size,
    GELU: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of k, v, of A theta and P theta [heads, chunks, 2, size], of the states after each chunk, and of the first."""
    head, heads = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    c, d = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    token = c < size
    here = tl.broadcast_to(token[:, None], (BLOCK_C, BLOCK_D))
    square: tl.constexpr = BLOCK_D * BLOCK_D
    state = d[:, None] * BLOCK_D + d[None, :]
    own = head * square + state
    d_w1, d_s1, d_w2, d_s2 = _load_states(d_last_ptr, heads * square, own)
    for back in range(chunks):
        chunk = head * chunks + chunks - 1 - back
        layer = heads * chunks * square
        kept = chunk * square + state
        _store_states(after_ptr, layer, kept, d_w1, d_s1, d_w2, d_s2)
        at = chunk * size * BLOCK_D + c[:, None] * BLOCK_D + d[None, :]
        g, f, p, onto_w, onto_s = chunk_end(shares_ptr, chunk, size, c)
        z = tl.load(z_ptr + at, mask=here, other=0.0)
        a = _activate(z, GELU)
        e2 = tl.load(e2_ptr + at, mask=here, other=0.0)
        d_e2 = tl.load(d_e2_ptr + at, mask=here, other=0.0)
        d_a, d_e2, by_w2, by_s2 = _write_back(a, e2, d_e2, d_w2, d_s2, onto_w, onto_s, PRECISION)
        k = tl.load(k_ptr + at, mask=here, other=0.0).to(tl.float32)
        e1 = tl.load(e1_ptr + at, mask=here, other=0.0)
        d_e1 = tl.load(d_e1_ptr + at, mask=here, other=0.0)
        d_k, d_e1, by_w1, by_s1 = _write_back(k, e1, d_e1, d_w1, d_s1, onto_w, onto_s, PRECISION)
        tl.store(d_writes_ptr + chunk * 2 * size + c, by_w2 + by_w1, mask=token)
        tl.store(d_writes_ptr + chunk * 2 * size + size + c, by_s2 + by_s1, mask=token)
        # What both layers kept.
        d_s1 = d_w1 * f + d_s1 * p + tl.load(d_starts_ptr + layer + kept)
        d_s2 = d_w2 * f + d_s2 * p + tl.load(d_starts_ptr + 3 * layer + kept)
        d_w1 = d_w1 * g + tl.load(d_starts_ptr + kept)
        d_w2 = d_w2 * g + tl.load(d_starts_ptr + 2 * layer + kept)
        w2 = tl.load(starts_ptr + 2 * layer + kept)
        d_z = tl.load(d_z_ptr + at, mask=here, other=0.0)
        d_z, d_e2, d_w2 = _errors_back(z, a, e2, w2, d_z, d_a, d_e1, d_e2, d_w2, GELU, PRECISION)
        tl.store(d_v_ptr + at, d_e2, mask=here)
        w1 = tl.load(starts_ptr + kept)  # z = K W_1
        tl.store(d_k_ptr + at, tl.dot(d_z, tl.trans(w1), d_k, input_precision=PRECISION), mask=here)
        d_w1 = tl.dot(tl.trans(k), d_z, d_w1, input_precision=PRECISION)
    _store_states(d_first_ptr, heads * square, own, d_w1, d_s1, d_w2, d_s2)
