"""MAC's whole segments in one compiled call: its layers' weights and its state as `memory_as_context` takes them.

What does not hang on the segment before is made for the whole text. What the memory answered becomes keys and values by one map,
`W_kv W_r diag(gain)`: the norm's gain, the map to rows and the map of rows have nothing between them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ShortConvolution
from models.ops.memory_as_context.native import Form, Given, built, read_segments
from models.ops.native_build import kind_of
from models.ops.neural_memory.native import is_slower_at
from models.ops.neural_memory.recurrence import begin
from models.ops.providers import NotCovered, note
from models.ops.short_convolution import short_convolution
from models.titans.memory_layer import MOMENTUM_BOUND, HeadNorm, Memory, MemoryState, NoConvolution

Tails = tuple[Tensor, Tensor]


def form_of(layer: nn.Module, x: Tensor) -> Form:
    """How the segments of a TitansMAC are compiled for x.

    Raises NotCovered for the literal reading, a memory that the compiled one does not cover or whose states are not all
    stored, numbers other than float32 and float64, layers that are not plain or listened to, and where nothing can be built.
    """
    memory, kind = layer.memory, kind_of(x)
    momentum, gates, forget = memory.gate_sizes
    hidden = {weight.shape[2] for weight in memory.initial[:-1]}
    if layer.literal or memory.store_every is not None:
        raise NotCovered("MAC's compiled segments have no literal reading and no store_every; use provider chunked.")
    if memory.rule.residual or len(hidden) > 1 or forget not in (0, gates):
        raise NotCovered(
            "MAC's compiled segments have no residual memory, hidden layers of one width, and forget for each head or each of "
            "its layers; use provider chunked."
        )
    if not _has_plain_parts(layer):
        raise NotCovered(
            "MAC's compiled segments read the weights of layers, one of which somebody replaced or listens to; "
            "use provider chunked."
        )
    if torch.is_autocast_enabled("cpu") or {x.dtype, *(weight.dtype for weight in layer.parameters())} != {kind}:
        raise NotCovered("MAC's compiled segments compute in float32 or float64 throughout; use provider chunked.")
    head = memory.initial[0].shape[1]
    form = Form(
        layer.segment, layer.pool, len(memory.initial), hidden.pop() if hidden else head, x.shape[2], head, gates, memory.rule,
        MOMENTUM_BOUND, momentum > 0, forget > 0, memory.unit_values,
    )  # fmt: skip
    built(form, _kernel(memory), kind)
    return form


def is_slower(layer: nn.Module, x: Tensor) -> bool:
    """Whether the memory's weights are so large that training is faster in chunks, as of the memory alone."""
    numbers = sum(weight[0].numel() for weight in layer.memory.initial)
    return torch.is_grad_enabled() and is_slower_at(numbers, layer.memory.rule.chunk)


def heard(layer: nn.Module, x: Tensor, tails: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor, Tails]:
    """The memory's queries before activation and norm, and attention's q, k, v, of x [b, t, width], and the convolutions' tails.

    [b, t, 4 h d]: four maps in one, and two convolutions. `tails` are of the queries and of q, k, v, as those that come back.
    """
    made = F.linear(x, torch.cat([layer.memory.query.weight, layer.query.weight, layer.key_value.weight]))
    inner = layer.query.out_features
    if isinstance(layer.conv, NoConvolution):
        return made, tuple(made[:, :0, :width].clone() for width in (inner, 3 * inner))
    weight = torch.cat([layer.memory.query_conv.weight, layer.conv.weight])
    before = None if tails[0] is None else torch.cat(tails, -1)
    made, after = short_convolution.form_or_auto(layer.provider)(made, weight, None, before)
    return made, tuple(part.clone() for part in after.split([inner, 3 * inner], -1))


def attended_segments(
    layer: nn.Module, form: Form, x: Tensor, heard: Tensor, memory: MemoryState | None
) -> tuple[Tensor, Tensor, MemoryState]:
    """y and what tokens read, as rows, [b, t, width], and the memory after x, t in whole segments.

    `heard` is what the function of that name says; `memory` stands at a segment's end, or is None before a text.
    """
    lift = layer.recall_out.weight * layer.recall_norm.gain
    prefix = layer._persistent(1)
    weight, bias = (_by_head(layer.memory, form, part) for part in _maps(layer.memory))
    tails, state = (None, None) if memory is None else (memory[:2], memory[2])
    given = Given(
        x if layer.inner_residual else None, heard.unflatten(-1, (4, layer.heads, -1)), prefix[0][0], prefix[1][0], bias,
        _taps(layer.memory), _bound(layer.memory, x), _recall(layer, lift), layer.attention_out.weight, weight,
        _packed(layer.memory, form, tails, x), _state(layer.memory, state, x),
    )  # fmt: skip
    y, reads, tails, state = read_segments(given, form)
    note("native")
    return y, F.linear(reads.flatten(2), lift), (*_unpacked(layer.memory, tails), _suspended(layer.memory, state))


def _has_plain_parts(layer: nn.Module) -> bool:
    """Whether what the compiled call takes the place of is as it was built, and nobody waits for a call of it."""
    memory = layer.memory
    maps = (
        memory.query,
        memory.key_value,
        memory.gates,
        layer.recall_out,
        layer.query,
        layer.key_value,
        layer.attention_out,
    )
    convolution = NoConvolution if isinstance(layer.conv, NoConvolution) else ShortConvolution
    kinds = [(memory, Memory), (layer.recall_norm, HeadNorm), *((part, nn.Linear) for part in maps)]
    kinds += [(part, convolution) for part in (memory.query_conv, memory.key_value_conv, layer.conv)]
    return all(type(part) is kind and not part._forward_hooks and not part._forward_pre_hooks for part, kind in kinds)


def _kernel(memory: Memory) -> int:
    """Inputs of a token's convolution: without one, its own."""
    return memory.query_conv.kernel if isinstance(memory.query_conv, ShortConvolution) else 1


def _maps(memory: Memory) -> tuple[Tensor, Tensor]:
    """Weights and biases of the memory's q, k, v and gates, one under the other."""
    weights = torch.cat([memory.query.weight, memory.key_value.weight, memory.gates.weight])
    none = memory.gates.bias.new_zeros(weights.shape[0] - memory.gates.out_features)
    return weights, torch.cat([none, memory.gates.bias])


def _by_head(memory: Memory, form: Form, rows: Tensor) -> Tensor:
    """Rows [h (3 d + gates), ..] put head by head, each filled up with zeros: [h c, ..]."""
    sizes = [form.head] * 3 + [size for size in memory.gate_sizes if size]
    parts = [part.unflatten(0, (memory.heads, -1)) for part in rows.split([memory.heads * size for size in sizes])]
    short = form.columns(rows.dtype) - sum(sizes)
    return torch.cat([*parts, rows.new_zeros(memory.heads, short, *rows.shape[1:])], 1).flatten(0, 1)


def _recall(layer: nn.Module, lift: Tensor) -> Tensor:
    """R [h 2d, h d]: the map from what the memory answers, of unit RMS, to keys and values, head by head."""
    joined = layer.key_value.weight @ lift
    return joined.unflatten(0, (2, layer.heads, -1)).transpose(0, 1).flatten(0, 2)


def _taps(memory: Memory) -> Tensor:
    """The convolutions' weights [h, kernel, 3 d], the newest input's last; a one where there is no convolution."""
    if isinstance(memory.query_conv, NoConvolution):
        return memory.query.weight.new_ones(memory.heads, 1, 3 * memory.query.out_features // memory.heads)
    weight = torch.cat([memory.query_conv.weight, memory.key_value_conv.weight])[:, 0]
    return weight.unflatten(0, (3, memory.heads, -1)).permute(1, 3, 0, 2).flatten(2)


def _bound(memory: Memory, x: Tensor) -> Tensor:
    bound = memory._bound()
    return x.new_full((memory.heads,), bound) if isinstance(bound, float) else bound.to(x.dtype)


def _packed(memory: Memory, form: Form, tails: Tails | None, x: Tensor) -> Tensor:
    """What the convolutions heard last, [b, kernel - 1, h d] and [.., h 2d], head by head: [b, kernel - 1, h c]."""
    before, columns = _kernel(memory) - 1, form.columns(x.dtype)
    if tails is None:
        return x.new_zeros(x.shape[0], before, memory.heads * columns)
    parts = torch.cat(tails, -1).to(x.dtype).unflatten(-1, (3, memory.heads, -1)).transpose(2, 3).flatten(3)
    return F.pad(parts, (0, columns - parts.shape[-1])).flatten(2)


def _unpacked(memory: Memory, tails: Tensor) -> Tails:
    head = memory.query.out_features // memory.heads
    parts = tails.unflatten(-1, (memory.heads, -1))[..., : 3 * head].unflatten(-1, (3, head)).transpose(2, 3).flatten(2)
    q, key_value = parts.split([memory.heads * head, 2 * memory.heads * head], -1)
    return q.clone(), key_value.clone()


def _state(memory: Memory, state: tuple | None, x: Tensor) -> Tensor:
    """The memory and its surprise [b, h, 2, weights]."""
    pair = begin(tuple(memory.initial), x.shape[0]) if state is None else state[:2]
    return torch.stack([torch.cat([w.to(x.dtype).flatten(2) for w in part], -1) for part in pair], 2)


def _suspended(memory: Memory, state: Tensor) -> tuple:
    """The operation's own state, whose open chunk is empty."""
    sizes = [weight[0].numel() for weight in memory.initial]
    pair = (
        tuple(
            w.unflatten(-1, own.shape[1:]).clone() for w, own in zip(part.split(sizes, -1), memory.initial, strict=True)
        )
        for part in state.unbind(2)
    )
    batch, heads, head = state.shape[0], memory.heads, memory.initial[0].shape[1]
    gates = memory.gate_sizes[1]
    gate = state.new_zeros(batch, 0, heads) if gates == 1 else state.new_zeros(batch, 0, heads, gates)
    token = state.new_zeros(batch, 0, heads, head)
    return *pair, (token, token.clone(), gate, gate.clone(), gate.clone())
