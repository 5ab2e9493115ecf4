"""What mamba-ssm and causal-conv1d compute, as their documentation says, with their signatures and their demands on layout."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def causal_conv1d_fn(
    x,
    weight,
    bias=None,
    seq_idx=None,
    initial_states=None,
    return_final_states=False,
    final_states_out=None,
    activation=None,
):
    """x [b, d, t] with channels last in memory, weight [d, k], bias [d], initial_states [b, d, k - 1] -> [b, d, t]."""
    assert seq_idx is None and not return_final_states and final_states_out is None and activation is None
    width, kernel = weight.shape
    assert x.shape[1] == width and width % 8 == 0 and 2 <= kernel <= 4
    assert x.stride(1) == 1 and x.stride(0) % 8 == 0 and x.stride(2) % 8 == 0 and x.data_ptr() % 16 == 0
    assert bias is None or bias.dtype == weight.dtype
    before = x.new_zeros(len(x), width, kernel - 1)
    if initial_states is not None:
        assert initial_states.shape == before.shape and initial_states.dtype == x.dtype
        assert initial_states.stride(1) == 1
        before = initial_states
    return F.conv1d(torch.cat([before, x], -1), weight[:, None], bias, groups=width)


class _NoGradient(torch.autograd.Function):
    """selective_scan_fn returns its last state as an output whose gradient is dropped."""

    @staticmethod
    def forward(ctx, state):
        return state.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


def selective_scan_fn(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
):
    """u, delta [b, d, t]; A [d, N]; B, C [b, N, t] -> [b, d, t], and the last state [b, d, N] if asked for."""
    assert D is None and z is None and delta_bias is None and not delta_softplus
    assert u.dtype == delta.dtype == A.dtype == B.dtype == C.dtype == torch.float32
    assert all(x.stride(-1) == 1 or x.shape[-1] == 1 for x in (u, delta, B, C))
    state, ys = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        write = (delta[..., t] * u[..., t])[..., None] * B[:, None, :, t]
        state = torch.exp(delta[..., t, None] * A) * state + write
        ys.append((state * C[:, None, :, t]).sum(-1))
    y = torch.stack(ys, -1)
    return (y, _NoGradient.apply(state)) if return_last_state else y


def mamba_chunk_scan_combined(
    x,
    dt,
    A,
    B,
    C,
    chunk_size,
    D=None,
    z=None,
    dt_bias=None,
    initial_states=None,
    seq_idx=None,
    cu_seqlens=None,
    dt_softplus=False,
    dt_limit=(0.0, float("inf")),
    return_final_states=False,
    return_varlen_states=False,
):
    """x [b, t, h, p], dt [b, t, h], A [h], B and C [b, t, g, n], states [b, h, p, n] -> y [b, t, h, p] and the last state."""
    assert D is None and z is None and dt_bias is None and seq_idx is None and not dt_softplus and return_final_states
    assert chunk_size >= 16 and chunk_size & (chunk_size - 1) == 0
    heads = x.shape[2]
    B, C = (value.repeat_interleave(heads // value.shape[2], 2) for value in (B, C))
    state = x.new_zeros(len(x), heads, x.shape[3], B.shape[3]) if initial_states is None else initial_states
    assert state.shape == (len(x), heads, x.shape[3], B.shape[3])
    ys = []
    for t in range(x.shape[1]):
        step = dt[:, t, :, None, None]
        state = torch.exp(step * A[:, None, None]) * state + step * x[:, t, :, :, None] * B[:, t, :, None]
        ys.append((state * C[:, t, :, None]).sum(-1))
    return torch.stack(ys, 1), state


def mamba3_siso_combined(
    Q,
    K,
    V,
    ADT,
    DT,
    Trap,
    Q_bias,
    K_bias,
    Angles,
    D=None,
    Z=None,
    Input_States=None,
    chunk_size=64,
    return_final_states=False,
    cu_seqlens=None,
):
    """Q, K [b, t, g, N], V [b, t, h, v], ADT, DT and Trap [b, h, t], biases [h, N], Angles [b, t, h, a], D [h] -> y, four states.

    Pairs (2j, 2j + 1) of a key turn. The states are angles [b, h, a], S [b, h, v, N], and the last k [b, h, N] and v [b, h, v].
    """
    assert Z is None and cu_seqlens is None and return_final_states and V.shape[2] % Q.shape[2] == 0
    assert all(one.is_contiguous() for one in (Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, *(Input_States or ())))
    assert all(one.dtype == torch.float32 for one in (ADT, DT, Q_bias, K_bias, *(Input_States or ())))
    (batch, time, heads, values), keys, angles = V.shape, Q.shape[3], Angles.shape[3]
    shapes = (angles,), (values, keys), (keys,), (values,)
    zeros = [V.new_zeros(batch, heads, *shape) for shape in shapes]
    angle, state, last_k, last_v = zeros if Input_States is None else Input_States

    def turned(x):
        pairs = torch.view_as_complex(x[..., : 2 * angles].unflatten(-1, (-1, 2)).contiguous())
        pairs = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
        return torch.cat([pairs, x[..., 2 * angles :]], -1)

    ys = []
    for t in range(time):
        angle = (angle + torch.pi * torch.tanh(Angles[:, t]) * DT[:, :, t, None]).remainder(2 * torch.pi)
        q, k, now = turned(Q[:, t] + Q_bias), turned(K[:, t] + K_bias), Trap[:, :, t].sigmoid()
        state = state + ((1 - now) * DT[:, :, t])[..., None, None] * last_v[..., None] * last_k[..., None, :]
        state = ADT[:, :, t, None, None].exp() * state
        state = state + (now * DT[:, :, t])[..., None, None] * V[:, t, :, :, None] * k[..., None, :]
        ys.append((state * q[..., None, :]).sum(-1) + D[:, None] * V[:, t])
        last_k, last_v = k, V[:, t]
    return torch.stack(ys, 1), angle, state, last_k, last_v
