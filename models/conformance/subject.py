"""What the conformance kit examines: one registered model at one size, its texts, and how far two answers differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import registry
from models.language_model import seeded
from models.shell.model import Size

Finding = tuple[bool, float | str, str]  # passed, the figure, and what it means

LEAST = 64  # the fast forms cut texts into chunks of up to this many tokens, whatever a model's own period


@dataclass
class Subject:
    """A registered model under examination; parameters and texts come from fixed seeds.

    `with_memory` says that what is examined is the memory that was added to it, which acts in evaluation alone.
    """

    name: str
    size: Size
    settings: dict[str, Any] = field(default_factory=dict)
    thorough: bool = False
    with_memory: bool = False

    @property
    def entry(self) -> registry.Entry:
        """The registry's entry of the model."""
        return registry.entry(self.name)

    def build(self, seed: int = 0) -> nn.Module:
        """The model as it is initialised."""
        return seeded(self.name, self.size, seed, **self.settings)

    @cached_property
    def model(self) -> nn.Module:
        """The model one optimiser step after its initialisation, so that nothing that starts at zero hides a fault.

        It is shared by all properties; whoever wants to change its parameters builds another.
        """
        # Whichever property asks first, under autocast or without gradients, it is the same model.
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            model = self.build()
            train(model, self.tokens(2, min(self.length, 512), seed=1), steps=1)
            return self.ready(model)

    def ready(self, model: nn.Module) -> nn.Module:
        """The model in the mode in which it is asked; with memory after it has been shown some random texts."""
        if not self.with_memory:
            return model
        texts = self.tokens(8, 65, seed=3)
        model.remember([(texts[:, :-1], texts[:, 1:])])
        return model.eval()

    @property
    def mixer(self) -> nn.Module:
        """An instance of the registered class: the first block's token mixer, or the whole language model."""
        return self.model if self.entry.is_language_model else self.model.blocks[0].mixer

    @property
    def period(self) -> int:
        """The model's period."""
        return self.model.period

    @cached_property
    def length(self) -> int:
        """Tokens that are more than two periods, and more than two chunks of the fast forms."""
        with torch.device("meta"):
            period = self.build().period
        return 2 * max(period, LEAST) + 21

    def tokens(self, batch: int, time: int, seed: int = 0) -> Tensor:
        """Random tokens [batch, time]."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.size.vocab, (batch, time), generator=generator)

    @cached_property
    def text(self) -> Tensor:
        """Two rows of more than two periods."""
        return self.tokens(2, self.length)

    @cached_property
    def logits(self) -> Tensor:
        """What `model` answers to the whole of `text`."""
        return feed(self.model, self.text)[0]


@torch.no_grad()
def feed(model: nn.Module, tokens: Tensor, cuts: Iterable[int] = (), state: Any = None) -> tuple[Tensor, Any]:
    """Logits and last state of a text that is fed in the pieces between `cuts`, without gradients."""
    pieces = []
    for piece in cut(tokens, cuts):
        logits, state = model(piece, state)
        pieces.append(logits)
    return torch.cat(pieces, 1), state


def cut(tokens: Tensor, cuts: Iterable[int]) -> list[Tensor]:
    """The pieces of a text between `cuts`; cuts outside the text are ignored."""
    time = tokens.shape[1]
    places = sorted({0, time, *(place for place in cuts if 0 < place < time)})
    return [tokens[:, start:stop] for start, stop in itertools.pairwise(places)]


def loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean cross entropy, in nats, of every next token."""
    logits = model(tokens[:, :-1])[0]
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def train(model: nn.Module, tokens: Tensor, steps: int, lr: float = 3e-3, until: float = -math.inf) -> list[float]:
    """Losses before each AdamW step on one batch and after the last (no weight decay, gradient norm cut at 1).

    There are `steps` of them, or fewer: none after the loss is `until` or below.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    losses = []
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            value = loss(model, tokens)
        losses.append(value.item())
        if step == steps or losses[-1] <= until:
            break
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    optimiser.zero_grad()
    return losses


def first_apart(one: Tensor, other: Tensor, bound: float) -> int:
    """The first token at which two sets of logits [b, t, vocab] differ by more than `bound`, relative, in any row; -1 if none.

    What is no finite number differs.
    """
    apart = (one.double() - other.double()).norm(dim=-1) / other.double().norm(dim=-1).clamp_min(1e-12)
    places = (~(apart <= bound)).any(0).nonzero()
    return int(places[0]) if len(places) else -1


def difference(one: Tensor, other: Tensor) -> float:
    """Largest relative difference of two sets of logits over all places: `|one - other| / |other|`, norms over the
    vocabulary.

    It is infinite where anything is not a finite number.
    """
    if not (one.isfinite().all() and other.isfinite().all()):
        return float("inf")
    norm = other.double().norm(dim=-1).clamp_min(1e-12)
    return ((one.double() - other.double()).norm(dim=-1) / norm).max().item()
