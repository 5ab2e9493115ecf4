"""A memory that is added to a trained language model: the model trains as ever, and the memory acts in evaluation alone.

    trained = the model of `base`, from its own training or its checkpoint
    memory = KNNLM(trained, ...);  memory.remember(batches);  memory.eval();  logits, state = memory(tokens, state)

A registered class whose constructor begins `(self, model, ...)` is one. It has no parameters of its own: its weights are the
base's, trained under the base's name, so that both share one training and one checkpoint, and every setting of its own is a
setting of the evaluation. What it holds comes from one of two places: from texts that it is shown once, by `remember`
(the same for all rows, rebuilt from the training text, in no file of weights), or from the row's own text so far, in its state.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import registry
from models.shell.carried_state import read_on
from models.shell.model import LanguageModel
from schema.settings import parameters
from schema.settings import settings as settings_of
from schema.settings_check import check_settings

Texts = Iterable[tuple[Tensor, Tensor]]  # tokens and targets [b, t]; a target below 0 is not asked


class AddedMemory(nn.Module):
    """A language model with a memory added. A subclass says `read`, and `remember` where it is to be shown texts.

    In training mode it is the base. `grid` names settings with the values that the validation split chooses among, for each that
    is None; `default` what stands for them before.
    """

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    default: ClassVar[Mapping[str, float]] = {}
    acts_without_gradient = False  # where it is timed: a training step is the base's, reading and decoding the memory's
    entries: int = 0  # tokens that `remember` is to be shown; 0 where the memory is filled from the text itself

    def __init__(self, model: nn.Module, **chosen: float | None):
        """`chosen` are the settings of `grid`. Raises ValueError for a base that is no model of the shell's blocks."""
        super().__init__()
        if not isinstance(model, LanguageModel) or type(model).hidden is not LanguageModel.hidden:
            raise ValueError(
                f"A memory is added to a model of token mixers in the shell's blocks, not to a {type(model).__name__}: "
                "choose a base that is a token mixer or a hybrid."
            )
        self.base = model
        self.asked = dict(chosen)
        self.chosen = {name: self.default[name] if value is None else value for name, value in chosen.items()}

    @classmethod
    def trains_as(cls, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Name and settings of the base under the memory's settings. Raises UnknownModel; ValueError for wrong settings of it."""
        own = parameters(cls)
        name = settings.get("base", own["base"].default)
        base = registry.entry(name)
        if base.adds_memory:
            raise ValueError(f"The base '{name}' is a memory itself: name the model that is to be trained.")
        chosen = dict(settings.get("base_settings") or {})
        check_settings("Base", name, chosen, settings_of(base.cls))
        if "provider" in settings and "provider" in parameters(base.cls):
            chosen.setdefault("provider", settings["provider"])
        return name, chosen

    @classmethod
    def made_of(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The base's name."""
        return (cls.trains_as(settings)[0],)

    @classmethod
    def declares(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What the base says of itself, and whether the state is fixed with the memory's part."""
        name, own = cls.trains_as(settings)
        base = registry.entry(name)
        asked = {"fixed_state": False, "least_depth": 1, "mixes_channels": False, "solves_depth": False}
        found = {one: base.says(one, own, default) for one, default in asked.items()}
        return found | {"fixed_state": found["fixed_state"] and not cls.grows(settings)}

    @classmethod
    def grows(cls, settings: Mapping[str, Any]) -> bool:
        """Whether what the memory puts into the state grows with the text under these settings."""
        return False

    @classmethod
    def stores_training(cls, settings: Mapping[str, Any]) -> bool:
        """Whether the memory is filled with texts of the training under these settings, not with the row's own text."""
        return False

    @property
    def is_asleep(self) -> bool:
        """Whether the model is its base: in training, and where it is timed, wherever a gradient is asked for."""
        return torch.is_grad_enabled() if self.acts_without_gradient else self.training

    @property
    def embedding(self) -> nn.Embedding:
        """The base's, which is called once for each token."""
        return self.base.embedding

    @property
    def blocks(self) -> nn.ModuleList:
        """The base's."""
        return self.base.blocks

    @property
    def period(self) -> int:
        """The base's, unless the memory has a longer one."""
        return self.base.period

    @property
    def fixed_state(self) -> bool:
        """Whether the largest state over a period stays the same; in training mode that is a question of the base alone."""
        base = all(getattr(block.mixer, "fixed_state", False) for block in self.blocks)
        return base and (self.is_asleep or not self.grows(vars(self)))

    def remember(self, texts: Texts) -> None:
        """Fill the memory with texts, in place of what it holds. A memory of the row's own text needs none."""

    def contents_bytes(self) -> int:
        """Bytes of what `remember` has filled."""
        return sum(held.nbytes for held in self._buffers.values() if held is not None)

    def candidates(self) -> Iterator[dict[str, float]]:
        """The values to choose among on the validation split, each a call of `choose`; one of no settings where none is open."""
        open_ = [name for name, value in self.asked.items() if value is None]
        for values in itertools.product(*(self.grid[name] for name in open_)):
            yield dict(zip(open_, values, strict=True))

    def choose(self, values: Mapping[str, float]) -> None:
        """Take these values for settings of `grid`."""
        self.chosen |= values

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits and state: in training mode the base's, else with the memory."""
        if self.is_asleep:
            return self.base(tokens, state)
        return read_on(self.read, tokens, state, self.embedding.weight)

    def read(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`forward` in evaluation for at least one token in at least one row."""
        raise NotImplementedError

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Run the block in evaluation and without gradients, whatever the mode around it."""
        was = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was)
