"""The state of any causal language model of transformers as tensors that can be kept, spread over rows and used twice.

transformers carries what it has read in an object of the model's own class, which every call changes in place. Here it is
taken apart into its tensors and what is around them, and put together again as a fresh object for every reading.
"""

from __future__ import annotations

import inspect
import io
import pickle
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NAMES = ("cache", "past_key_values", "cache_params", "state")  # what the classes of transformers call a carried state


class Kept(NamedTuple):
    """A carried state: tensors of one row each along their first axis, what is around them, and the tokens that it has read."""

    tensors: tuple[Tensor, ...]
    frame: bytes
    seen: int


class NoState(ValueError):
    """A model that carries no state from one piece of a text to the next, or none that can be kept."""


def keep(state: Any, rows: int, seen: int) -> Kept:
    """What a model of transformers carries after `seen` tokens of `rows` texts. Raises NoState for what cannot be copied."""
    found: list[Tensor] = []

    class Taker(pickle.Pickler):
        def persistent_id(self, part: Any) -> int | None:
            """The place of a tensor with a row for each text; whatever else there is stays in the frame."""
            if not isinstance(part, Tensor) or part.dim() < 2 or part.shape[0] != rows:
                return None
            # A window is a view of all that was read last: its own numbers are kept, not what lies behind them.
            found.append(part.clone() if part.untyped_storage().nbytes() > part.nbytes else part)
            return len(found) - 1

    frame = io.BytesIO()
    try:
        Taker(frame).dump(state)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise NoState(f"its carried state, {type(state).__name__}, cannot be copied ({error})") from None
    return Kept(tuple(found), frame.getvalue(), seen)


def given_back(kept: Kept) -> Any:
    """A fresh state object with copies of the kept tensors, which a call may change. `kept.frame` was made in this process."""

    class Giver(pickle.Unpickler):
        def persistent_load(self, place: int) -> Tensor:
            return kept.tensors[place].clone()

    return Giver(io.BytesIO(kept.frame)).load()


class Caller:
    """Calls of one model of transformers, each with what the call before it left behind.

    `tells_positions` says that every call names the places of its tokens: some classes count from nought in every piece
    without. Raises NoState for a class without an argument for a state.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        known = inspect.signature(inspect.unwrap(type(model).forward)).parameters
        name = next((name for name in NAMES if name in known), None)
        if name is None:
            raise NoState(f"{type(model).__name__} takes no carried state: it cannot be asked in pieces.")
        self.name = name
        self.can_keep_few = "logits_to_keep" in known
        self.tells_positions = "position_ids" in known
        self.is_given_a_cache = False  # some classes return no state, but fill one that they are given
        self.inside: list[tuple[nn.Module, str]] | None = None  # and some keep a part of it in their own layers

    def whole(self, tokens: Tensor, last: int) -> Tensor:
        """Logits of the last `last` tokens of texts [b, t], read in one call without any state."""
        few = {"logits_to_keep": last} if self.can_keep_few else {}
        return self.model(input_ids=tokens, use_cache=False, **few).logits[:, -last:]

    def __call__(self, tokens: Tensor, left: Any, seen: int) -> tuple[Tensor, Any]:
        """Logits of tokens [b, t] that follow `seen` others, and what the call leaves; what is given, `left`, is changed."""
        state, inside = left or (None, None)
        for place, (layer, name) in enumerate(self.inside or ()):
            setattr(layer, name, inside[place] if inside else None)
        if state is None and self.is_given_a_cache:
            state = self._cache()
        before = {} if self.inside is not None else self._tensors_inside()
        out = self.model(input_ids=tokens, use_cache=True, **self._given(tokens, state, seen))
        if self.inside is None:
            now = self._tensors_inside()
            self.inside = [place for place, tensor in now.items() if before.get(place) is not tensor]
        after = getattr(out, self.name, None)
        if after is None and state is None:
            if self.is_given_a_cache:
                raise NoState(f"{type(self.model).__name__} carries no state: it cannot be asked in pieces.")
            self.is_given_a_cache = True
            return self(tokens, None, seen)
        if out.logits.shape[:2] != tokens.shape:
            given, said = tuple(tokens.shape), tuple(out.logits.shape[:2])
            raise NoState(f"it answers {given[0]} rows of {given[1]} tokens by {said[0]} of {said[1]}")
        return out.logits, (state if after is None else after, [getattr(*place) for place in self.inside])

    def _given(self, tokens: Tensor, state: Any, seen: int) -> dict[str, Any]:
        given = {} if state is None else {self.name: state}
        if self.tells_positions:
            places = torch.arange(seen, seen + tokens.shape[1], device=tokens.device)
            given["position_ids"] = places.expand(len(tokens), -1)
        return given

    def _cache(self) -> Any:
        from transformers import DynamicCache

        try:
            return DynamicCache(config=self.model.config)
        except TypeError:  # of an older transformers, which asks no configuration
            return DynamicCache()

    def _tensors_inside(self) -> dict[tuple[nn.Module, str], Tensor]:
        """The tensors that layers hold beside their parameters and buffers, by layer and name."""
        return {
            (layer, name): part
            for layer in self.model.modules()
            for name, part in vars(layer).items()
            if isinstance(part, Tensor)
        }
