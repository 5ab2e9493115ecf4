"""Size, build(), and the shell that every token mixer is put in.

The shell is the Llama-style block of the papers compared: `x + mixer(RMSNorm(x))`, then `x + SwiGLU(RMSNorm(x))`, tied
embeddings, a last norm. It initialises its own parts only: a wrapper that re-initialises a mixer cripples it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models import registry
from models.carried_state import StateMismatch, read_on
from models.layers import RMSNorm, SwiGLU
from models.matching import solver
from models.matching.counts import parameter_count, state_bytes
from models.matching.match import PARAMETERS, Match, Shape, default_feed
from models.matching.shapes_only import shapes_only
from models.matching.solver import Candidate
from models.ops.providers import check_provider
from schema.settings import construct, parameters
from schema.settings import settings as settings_of
from schema.settings_check import check_settings as hold_settings

__all__ = (
    "Block", "LanguageModel", "Match", "Size", "assemble", "build", "candidate", "check_settings", "parameter_count",
    "reference_parameters", "seeded", "solve", "state_bytes",
)  # fmt: skip

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
    """One layer of the shell: a token mixer and, unless it mixes channels itself, a SwiGLU of `inner` units.

    A mixer that says `norms_itself` is given the residual stream as it is, without a norm before it.
    """

    def __init__(self, width: int, mixer: nn.Module, inner: int):
        super().__init__()
        self.mixer_norm, self.mixer = None if getattr(mixer, "norms_itself", False) else RMSNorm(width), mixer
        self.feed_norm, self.feed = (RMSNorm(width), SwiGLU(width, inner)) if inner else (None, None)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.mixer(x if self.mixer_norm is None else self.mixer_norm(x), state)
        x = x + y
        if self.feed is not None:
            x = x + self.feed(self.feed_norm(x))
        return x, state


class LanguageModel(nn.Module):
    """The shell around token mixers: `logits, state = model(tokens, state)`; state is a tuple of the mixers' states.

    Shapes: tokens long [b, t] -> logits [b, t, vocab]. A text may be cut anywhere; a state passed in is never modified.
    A subclass that reads otherwise overrides `read`.
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

    def forward(self, tokens: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple | None]:
        """Logits and state; an empty piece changes nothing. Raises StateMismatch for a state that is not this model's."""
        return read_on(self.read, tokens, state, self.embedding.weight)

    def read(self, tokens: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """`forward` for at least one token in at least one row, and a state of that many rows."""
        if state is not None and (not isinstance(state, tuple | list) or len(state) != len(self.blocks)):
            raise StateMismatch(f"That state is no tuple of {len(self.blocks)} mixers' states: it is another model's.")
        x = self.embedding(tokens)
        states = []
        for index, block in enumerate(self.blocks):
            x, after = block(x, None if state is None else state[index])
            states.append(after)
        return self.norm(x) @ self.embedding.weight.to(x.dtype).T, tuple(states)


def build(name: str, size: Size, *, match: Match | Literal[False] = PARAMETERS, **settings: Any) -> nn.Module:
    """Build a registered model on equal terms with the reference Transformer at this size: with its parameters.

    `match=Match("state", state_bytes=65_536)` or `Match("flops", flops_length=512)` solves for those instead, in models that can
    come within the tolerance; the others keep their parameter match. `match=False` keeps the reference's depth and SwiGLU
    width. `settings` are the class's own. Raises UnknownModel; ValueError for an unknown or ill-typed setting (with the
    signature), or for a size at which parameters cannot be matched (NoMatch).
    """
    entry = registry.entry(name)
    check_settings(entry, settings)
    if match is not False and not isinstance(match, Match):
        raise ValueError(f"match takes a Match (Match('parameters'), 'state' or 'flops') or False, not {match!r}.")
    return assemble(entry, size, solve(entry, size, settings, match) if match else _unsolved(entry, size), settings)


def solve(entry: registry.Entry, size: Size, settings: dict[str, Any], match: Match = PARAMETERS) -> Shape:
    """The shape that brings a model nearest to what is matched. Raises NoMatch beyond the tolerance of parameters."""
    question = (entry, size, repr(sorted(settings.items())), match)
    if question not in _solved:
        _solved[question] = solver.solve(candidate(entry, size, settings), match)
    return _solved[question]


_solved: dict[tuple, Shape] = {}  # a search builds a model a dozen times


def candidate(entry: registry.Entry, size: Size, settings: dict[str, Any]) -> Candidate:
    """A model as the search for its shape sees it; settings that the user gives are not solved."""
    own, setting = parameters(entry.cls), getattr(entry.cls, "state_setting", "inner")
    unit = 2 * size.heads
    has_state = getattr(entry.cls, "fixed_state", False) and setting in own and setting not in settings
    return Candidate(
        name=entry.name,
        size=str(size),
        start=_unsolved(entry, size),
        width=size.width,
        unit=unit if "inner" in own and "inner" not in settings else None,
        state_unit=(unit if setting == "inner" else 1) if has_state else None,
        state_is_inner=setting == "inner",
        assemble=partial(assemble, entry, size, settings=settings),
        sample=partial(_sample, entry, size, settings),
        reference=partial(_reference, size),
    )


def _unsolved(entry: registry.Entry, size: Size) -> Shape:
    feed = 0 if getattr(entry.cls, "mixes_channels", False) else default_feed(size.width)
    return Shape(size.depth, feed)


def _sample(entry: registry.Entry, size: Size, settings: dict[str, Any], shape: Shape) -> tuple[nn.Module, int]:
    """A small model with a block's state (a whole language model's, all of it), and how many of these the shape's model has.

    Any provider's state is the same, so the one that was asked for, which may need another device, is left out.
    """
    size, settings = replace(size, vocab=2), {name: value for name, value in settings.items() if name != "provider"}
    if entry.is_language_model:
        return assemble(entry, size, shape, settings), 1
    return assemble(entry, size, replace(shape, depth=1, feed=min(shape.feed, 8)), settings), shape.depth


def _reference(size: Size) -> nn.Module:
    entry = registry.entry(REFERENCE)
    return assemble(entry, size, _unsolved(entry, size), {})


def reference_parameters(size: Size) -> int:
    """Non-embedding parameters of the reference Transformer at this size."""
    with shapes_only():
        return parameter_count(_reference(size))


def assemble(entry: registry.Entry, size: Size, shape: Shape, settings: dict[str, Any]) -> nn.Module:
    """The model of a solved shape: `depth` blocks, SwiGLU of `feed` units, the mixer's `inner` width and state setting."""
    solved = [("inner", shape.inner), (getattr(entry.cls, "state_setting", "inner"), shape.state)]
    own = settings | {name: value for name, value in solved if value is not None}
    if entry.is_language_model:
        return construct(entry.cls, size, feed=shape.feed, **own)
    blocks = [
        Block(size.width, construct(entry.cls, size.width, size.heads, **own), shape.feed) for _ in range(shape.depth)
    ]
    return LanguageModel(size, blocks)


def check_settings(entry: registry.Entry, settings: dict[str, Any]) -> None:
    """Raise ValueError, printing the signature, for a setting that the class does not know or that has the wrong type."""
    check_provider(settings.get("provider", "auto"))
    hold_settings("Model", entry.name, settings, settings_of(entry.cls))


def seeded(name: str, size: Size, seed: int, **settings: Any) -> nn.Module:
    """`build` with torch's global generator seeded first, and restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, size, **settings)
