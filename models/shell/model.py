"""The language model around a token mixer: its size, its blocks, and how they are put together.

The shell is the Llama-style block of the papers compared: `x + mixer(RMSNorm(x))`, then `x + SwiGLU(RMSNorm(x))`, tied
embeddings, a last norm. It initialises its own parts only: a wrapper that re-initialises a mixer cripples it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from models import registry
from models.layers import RMSNorm, SwiGLU
from models.ops.dense import native as dense
from models.shell.carried_state import StateMismatch, read_on
from models.shell.decoding import RecordedSteps
from schema.settings import construct, parameters

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Size:
    """The one size for all models. `width` is that of the residual stream, `depth` the reference Transformer's blocks."""

    vocab: int
    width: int
    depth: int
    heads: int

    def __post_init__(self):
        for field in ("vocab", "width", "depth", "heads"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Size.{field} must be a whole number of at least 1, not {value!r}.")
        if self.width % self.heads:
            raise ValueError(f"Size.width {self.width} cannot be shared by {self.heads} heads; make it a multiple.")


@dataclass(frozen=True)
class Shape:
    """Depth, SwiGLU width (0: none), the mixer's inner width and the setting of its state (None: their defaults)."""

    depth: int
    feed: int
    inner: int | None = None
    state: int | None = None


SPREAD = 0.02  # standard deviation of a new embedding and SwiGLU


class Block(nn.Module):
    """One layer of the shell: a token mixer and, unless it mixes channels itself, a SwiGLU of `inner` units.

    A mixer that says `norms_itself` is given the residual stream as it is, without a norm before it.
    """

    def __init__(self, width: int, mixer: nn.Module, inner: int):
        super().__init__()
        provider = getattr(mixer, "provider", "auto")
        norms_itself = getattr(mixer, "norms_itself", False)
        self.mixer_norm, self.mixer = None if norms_itself else RMSNorm(width, provider=provider), mixer
        self.feed_norm, self.feed = None, None
        if inner:
            self.feed_norm, self.feed = RMSNorm(width, provider=provider), SwiGLU(width, inner, provider)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.mixer(x if self.mixer_norm is None else self.mixer_norm(x), state)
        if y.shape != x.shape:  # some other shapes would be spread over the sum without an error
            raise ValueError(
                f"{type(self.mixer).__name__} made {list(y.shape)} of {list(x.shape)}: a mixer returns y of its input's shape "
                "[b, t, width], and its state."
            )
        x = x + y
        if self.feed is not None:
            x = x + self.feed(self.feed_norm(x))
        return x, state


class LanguageModel(nn.Module):
    """The shell around token mixers: `logits, state = model(tokens, state)`; state is a tuple of the mixers' states.

    Shapes: tokens long [b, t] -> logits [b, t, vocab]. A text may be cut anywhere; a state passed in is never modified.
    A subclass that reads otherwise overrides `hidden`. A mixer whose outputs begin at zero leaves the embedding as it is, which
    the tied output then repeats, at a loss above log(vocab) in a wide model: such a mixer says the `embedding_spread` that
    is small enough.
    """

    def __init__(self, size: Size, blocks: list[Block]):
        """Raises ValueError where there are no blocks."""
        if not blocks:
            raise ValueError("A language model needs at least one block, and the list of blocks is empty.")
        super().__init__()
        self.size, self._steps = size, RecordedSteps()
        self.embedding = nn.Embedding(size.vocab, size.width)
        self.blocks = nn.ModuleList(blocks)
        asked = {getattr(getattr(block, "mixer", None), "provider", "auto") for block in blocks}
        self.end_provider = (
            asked.pop() if len(asked) == 1 else "auto"
        )  # of last norm and head: what all mixers are asked for
        self.norm = RMSNorm(size.width, provider=self.end_provider)
        spreads = (getattr(getattr(block, "mixer", None), "embedding_spread", SPREAD) for block in blocks)
        nn.init.normal_(self.embedding.weight, std=min([SPREAD, *spreads]))
        for block in blocks:
            if block.feed is not None:
                nn.init.normal_(block.feed.gate_up.weight, std=SPREAD)
                nn.init.normal_(block.feed.down.weight, std=SPREAD / math.sqrt(2 * len(blocks)))

    @property
    def period(self) -> int:
        """The largest chunk, segment or window of the mixers; 1 if there is none."""
        return max(getattr(block.mixer, "period", 1) for block in self.blocks)

    def forward(self, tokens: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple | None]:
        """Logits and state; an empty piece changes nothing. Raises StateMismatch for a state that is not this model's."""
        if state is not None and (found := self._steps(self, self._read_on, tokens, state)) is not None:
            return found
        return self._read_on(tokens, state)

    def _read_on(self, tokens: Tensor, state: tuple | None) -> tuple[Tensor, tuple | None]:
        return read_on(self.read, tokens, state, self.embedding.weight)

    def read(self, tokens: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """`forward` for at least one token in at least one row, and a state of that many rows."""
        hidden, state = self.hidden(tokens, state)
        return self.head(hidden), state

    def hidden(self, tokens: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """What the logits are made of, [b, t, width], and the state: `head(hidden)` are the logits."""
        if state is not None and (not isinstance(state, tuple | list) or len(state) != len(self.blocks)):
            raise StateMismatch(f"That state is no tuple of {len(self.blocks)} mixers' states: it is another model's.")
        x = self.embedding(tokens)
        states = []
        for index, block in enumerate(self.blocks):
            x, after = block(x, None if state is None else state[index])
            states.append(after)
        return self.norm(x), tuple(states)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of hidden vectors [..., width], by the tied embedding."""
        if dense.is_step(hidden, self.end_provider) and hidden.dtype is self.embedding.weight.dtype:
            return dense.linear(hidden, self.embedding.weight)
        return hidden @ self.embedding.weight.to(hidden.dtype).T

    @property
    def has_head(self) -> bool:
        """Whether `head(hidden(tokens, state))` is what it reads: not if a subclass overrides `read` itself."""
        return type(self).read is LanguageModel.read


def deep_enough(entry: registry.Entry, size: Size, settings: Mapping[str, Any] = NO_SETTINGS) -> Size:
    """The size, or that of the least depth that holds the model's pattern of layers, where it is less deep."""
    return replace(size, depth=max(size.depth, entry.says("least_depth", settings, 1)))


def default_feed(width: int) -> int:
    """The reference's SwiGLU width: 8/3 of the model's, in multiples of 8."""
    return max(8, round(width * 8 / 3 / 8) * 8)


def unsolved(entry: registry.Entry, size: Size, settings: Mapping[str, Any] = NO_SETTINGS) -> Shape:
    """The shape of a model before any search: the size's depth, the reference's SwiGLU unless it mixes channels itself."""
    entry, settings = entry.trained_as(settings)
    feed = 0 if entry.says("mixes_channels", settings, False) else default_feed(size.width)
    return Shape(size.depth, feed)


def assemble(entry: registry.Entry, size: Size, shape: Shape, settings: dict[str, Any]) -> nn.Module:
    """The model of a solved shape: `depth` blocks, SwiGLU of `feed` units, the mixer's `inner` width and state setting.

    A memory is added to the model that it is trained as, which has that shape.
    """
    if entry.adds_memory:
        base, own = entry.trained_as(settings)
        return construct(entry.cls, assemble(base, size, shape, own), **settings)
    solved = [("inner", shape.inner), (getattr(entry.cls, "state_setting", "inner"), shape.state)]
    own = settings | {name: value for name, value in solved if value is not None}
    if entry.is_language_model:
        return construct(entry.cls, replace(size, depth=shape.depth), feed=shape.feed, **own)
    blocks = []
    for index in range(shape.depth):
        where = layer_arguments(entry.cls, index, shape.depth)
        mixer = construct(entry.cls, size.width, size.heads, **where, **own)
        blocks.append(Block(size.width, mixer, shape.feed))
    return LanguageModel(size, blocks)


def layer_arguments(mixer: type, index: int, depth: int) -> dict[str, int]:
    """What a token mixer's constructor is told of its layer where it names them: `index`, from 0, and the model's `depth`."""
    named = parameters(mixer)
    return {name: value for name, value in (("index", index), ("depth", depth)) if name in named}
