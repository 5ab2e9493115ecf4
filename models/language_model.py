"""Size, build(), and the shell that every token mixer is put in.

The shell is the Llama-style block of the papers compared: `x + mixer(RMSNorm(x))`, then `x + SwiGLU(RMSNorm(x))`, tied
embeddings, a last norm. It initialises its own parts only: a wrapper that re-initialises a mixer cripples it.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from models import registry
from models.kernels import check_provider
from models.layers import RMSNorm, SwiGLU
from models.matching import NoMatch, Shape, by_depth, by_feed, default_feed, tolerance

REFERENCE = "transformer"  # the model whose parameters all others are matched to


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


class Block(nn.Module):
    """One layer of the shell: a token mixer and, unless it mixes channels itself, a SwiGLU of `inner` units."""

    def __init__(self, width: int, mixer: nn.Module, inner: int):
        super().__init__()
        self.mixer_norm, self.mixer = RMSNorm(width), mixer
        self.feed_norm, self.feed = (RMSNorm(width), SwiGLU(width, inner)) if inner else (None, None)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.mixer(self.mixer_norm(x), state)
        x = x + y
        if self.feed is not None:
            x = x + self.feed(self.feed_norm(x))
        return x, state


class LanguageModel(nn.Module):
    """The shell around token mixers: `logits, state = model(tokens, state)`; state is a tuple of the mixers' states.

    Shapes: tokens long [b, t] -> logits [b, t, vocab]. A text may be cut anywhere; a state passed in is never modified.
    """

    def __init__(self, size: Size, blocks: list[Block]):
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(size.vocab, size.width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm(size.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in blocks:
            if block.feed is not None:
                nn.init.normal_(block.feed.gate_up.weight, std=0.02)
                nn.init.normal_(block.feed.down.weight, std=0.02 / math.sqrt(2 * len(blocks)))

    @property
    def period(self) -> int:
        """The largest chunk, segment or window of the mixers; 1 if there is none."""
        return max(getattr(block.mixer, "period", 1) for block in self.blocks)

    def forward(self, tokens: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        x = self.embedding(tokens)
        states = []
        for index, block in enumerate(self.blocks):
            x, after = block(x, None if state is None else state[index])
            states.append(after)
        return self.norm(x) @ self.embedding.weight.to(x.dtype).T, tuple(states)


def build(name: str, size: Size, *, match: bool = True, **settings: Any) -> nn.Module:
    """Build a registered model whose parameters match the reference Transformer's at this size.

    `match=False` keeps the reference's depth and SwiGLU width instead. `settings` are the class's own. Raises UnknownModel;
    ValueError for an unknown or ill-typed setting (with the signature), or for a size that cannot be matched (NoMatch).
    """
    entry = registry.entry(name)
    check_settings(entry, settings)
    feed = 0 if getattr(entry.cls, "mixes_channels", False) else default_feed(size.width)
    shape = solve(entry, size, settings) if match else Shape(size.depth, feed)
    return assemble(entry, size, shape, settings)


def solve(entry: registry.Entry, size: Size, settings: dict[str, Any]) -> Shape:
    """The shape that brings a model nearest to the reference's parameters. Raises NoMatch beyond the tolerance."""
    question = (entry, size, repr(sorted(settings.items())))
    if question not in _solved:
        _solved[question] = _solve(entry, size, settings)
    return _solved[question]


_solved: dict[tuple, Shape] = {}  # a search builds a model a dozen times


def _solve(entry: registry.Entry, size: Size, settings: dict[str, Any]) -> Shape:
    def count(shape: Shape) -> int:
        with torch.device("meta"):
            return parameter_count(assemble(entry, size, shape, settings))

    target = reference_parameters(size)
    own = inspect.signature(entry.cls).parameters
    unit = 2 * size.heads if "inner" in own and "inner" not in settings else None
    search = by_depth if getattr(entry.cls, "mixes_channels", False) else by_feed
    shape = search(count, target, size.depth, size.width, unit)
    if abs(count(shape) - target) > tolerance(target) * target:
        raise NoMatch(
            f"Model '{entry.name}' cannot be matched at {size}: the nearest has {count(shape):,} parameters ({shape}) and the "
            f"reference Transformer {target:,}; change the size or its settings, or build with match=False."
        )
    return shape


def reference_parameters(size: Size) -> int:
    """Non-embedding parameters of the reference Transformer at this size."""
    with torch.device("meta"):
        shape = Shape(size.depth, default_feed(size.width))
        return parameter_count(assemble(registry.entry(REFERENCE), size, shape, {}))


def assemble(entry: registry.Entry, size: Size, shape: Shape, settings: dict[str, Any]) -> nn.Module:
    """The model of a solved shape: `depth` blocks, SwiGLU of `feed` units, and the mixer's own `inner` width."""
    own = dict(settings) if shape.inner is None else {**settings, "inner": shape.inner}
    if entry.is_language_model:
        return entry.cls(size, feed=shape.feed, **own)
    blocks = [Block(size.width, entry.cls(size.width, size.heads, **own), shape.feed) for _ in range(shape.depth)]
    return LanguageModel(size, blocks)


def parameter_count(model: nn.Module) -> int:
    """Learned numbers outside the token embedding (tied to the output); initial memories and persistent tokens count."""
    embedding = model.embedding.weight
    return sum(p.numel() for p in model.parameters() if p is not embedding)


def state_bytes(state: Any) -> int:
    """Bytes of the distinct storages behind the tensors of a state; plain integers count nothing."""
    storages = {}
    for leaf in tree_leaves(state):
        if isinstance(leaf, Tensor):
            storage = leaf.untyped_storage()
            storages[storage.data_ptr(), storage.device] = storage.nbytes()
    return sum(storages.values())


def check_settings(entry: registry.Entry, settings: dict[str, Any]) -> None:
    """Raise ValueError, printing the signature, for a setting that the class does not know or that has the wrong type."""
    signature = inspect.signature(entry.cls)
    hints = typing.get_type_hints(entry.cls.__init__)
    known = [name for name in signature.parameters if name not in ("width", "heads", "size", "feed")]
    text = ", ".join(str(signature.parameters[name]) for name in known) or "no settings"
    check_provider(settings.get("provider", "auto"))
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"Model '{entry.name}' has no setting '{name}'; its settings are: {text}.")
        if not _fits(value, hints.get(name, Any)):
            raise ValueError(f"Setting {entry.name}.{name}={value!r} has the wrong type; its settings are: {text}.")


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    plain = typing.get_origin(hint) or hint
    if plain is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if plain is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, plain) if isinstance(plain, type) else True


def seeded(name: str, size: Size, seed: int, **settings: Any) -> nn.Module:
    """`build` with torch's global generator seeded first, and restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, size, **settings)
