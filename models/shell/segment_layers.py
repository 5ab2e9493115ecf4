"""The shell's blocks as `models.ops.segment_layers` takes them, and a text in segments."""

from __future__ import annotations

from torch import Tensor

from models.ops.segment_layers.native import Layer
from models.shell.model import Block
from models.shell.segments import CrossAttention


def layer_of(block: Block, ask_gain: Tensor | None = None, reader: CrossAttention | None = None) -> Layer:
    """The weights of a block with a `SegmentAttention`, and of its reading of memory behind a norm's gain."""
    own, feed = block.mixer, block.feed
    inside = block.mixer_norm.weight, own.query_key.weight, own.value.weight, own.out.weight
    layer = Layer(*inside, feed.gate_up.weight, block.feed_norm.weight, feed.down.weight)
    if reader is None:
        return layer
    return layer._replace(
        ask_gain=ask_gain, ask=reader.query.weight, held=reader.key_value.weight, find=reader.out.weight
    )


def in_segments(x: Tensor, segment: int) -> Tensor:
    """x [b, n * segment, d] -> [n, b, segment, d]."""
    return x.unflatten(1, (-1, segment)).transpose(0, 1)


def joined(x: Tensor) -> Tensor:
    """`in_segments` back."""
    return x.transpose(0, 1).flatten(1, 2)
