"""The trial of a model of transformers before it is asked: a text in pieces beside the whole, read in every way."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from baselines.oracles.adapters import ways_of_reading
from baselines.oracles.adapters.carried_state import Caller
from baselines.oracles.adapters.position_limits import window
from baselines.oracles.adapters.ways_of_reading import WAYS, State, Way
from models.conformance.streaming import LARGEST_STATE, SPLIT, NotStreamable
from models.conformance.subject import cut, difference
from models.matching.counts import state_bytes
from schema import fault

TAIL = 149
CUTS = (1, 38, 63, 64, 65, 128, *range(135, TAIL))  # of its tokens: pieces about a power of two, and single tokens
AGAIN = 40  # of its tokens are read a second time after the same state
CLEAN = SPLIT / 50  # rounding alone: a way within it is taken at once
AS_GOOD = 10  # else the quickest of those whose error is at most so many times the least, which must be within SPLIT


class Decision(NamedTuple):
    """How a model is read, and the error of each way that was tried: relative, over the vocabulary, at the worst place."""

    way: str
    errors: dict[str, float]

    def sentence(self) -> str:
        """The decision with its figures."""
        others = "".join(f", {name} {_figure(error)}" for name, error in self.errors.items() if name != self.way)
        beside = f" ({others[2:]})" if others else ""
        return f"Read {self.way}: relative error to the whole text {_figure(self.errors[self.way])}{beside}."


class _Trial(NamedTuple):
    error: float = float("inf")
    state: int = 0  # bytes of one row's, at the end
    growth: float = 0.0  # bytes that a token adds to it
    fault: str = ""


@torch.no_grad()
def decide(caller: Caller, longest: int, vocab: int, positions: int | None, piece: int) -> Decision:
    """The quickest way of reading that gives in pieces what the whole text gives, for texts of up to `longest` tokens.

    The text of the trial has two rows of random tokens, as many as are asked but no more than two pieces of `piece` tokens, or a
    window and a piece, and a tail in which it is cut; its logits are compared in the tail. Raises NotStreamable for a model
    that is wrong in every way, with all figures, and for a state that would not fit at `longest`.
    """
    text = _text(caller, longest, vocab, positions, piece)
    try:
        whole = caller.whole(text, min(TAIL, text.shape[1]))
        caller.tells_positions = caller.tells_positions and _counts_from_nought(caller, text[:, :TAIL])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # transformers raises many kinds
        raise NotStreamable(f"{_name(caller)} reads no text: {fault(error, 200)}") from None
    trials: dict[str, _Trial] = {}
    for name, way in WAYS.items():
        trials[name] = _tried(caller, way, text, whole, piece)
        if trials[name].error < CLEAN:
            break
    least = min(trial.error for trial in trials.values())
    if not least < SPLIT:
        raise NotStreamable(_refusal(caller, trials))
    best = next(name for name, trial in trials.items() if trial.error <= min(AS_GOOD * least, SPLIT))
    _fits(trials[best], longest, text.shape[1])
    return Decision(best, {name: trial.error for name, trial in trials.items()})


def _text(caller: Caller, longest: int, vocab: int, positions: int | None, piece: int) -> Tensor:
    length = min(max(longest, TAIL), max(2 * piece, window(caller.model) + piece) + TAIL)
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(vocab, (2, min(length, positions or length)), generator=generator)
    return text.to(caller.model.get_input_embeddings().weight.device)


def _counts_from_nought(caller: Caller, text: Tensor) -> bool:
    """Whether positions counted from nought are what the model counts by itself: some classes begin elsewhere."""
    told, _ = caller(text, None, 0)
    return difference(told, caller.whole(text, text.shape[1])) < CLEAN


def _tried(caller: Caller, way: Way, text: Tensor, whole: Tensor, piece: int) -> _Trial:
    """How far one way is from the whole, where the state before the tail is used twice and that behind it for more rows."""
    head = text.shape[1] - whole.shape[1]
    try:
        state = ways_of_reading.beginning(text)
        for part in text[:, :head].split(piece, 1) if head else ():
            _, state = way(caller, part, state)
        start, tail = state_bytes(state), text[:, head:]
        (found, last), (again, _) = _fed(caller, way, tail, state), _fed(caller, way, tail[:, :AGAIN], state)
        errors = difference(found, whole), difference(again, whole[:, :AGAIN]), _spread(caller, way, tail[:, :3], last)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds, each of which says that this way leads nowhere
        return _Trial(fault=fault(error, 120))
    end = state_bytes(last)
    return _Trial(max(errors), end // len(text), max(0, end - start) / len(text) / tail.shape[1])


def _fed(caller: Caller, way: Way, text: Tensor, state: State) -> tuple[Tensor, State]:
    logits = []
    for piece in cut(text, CUTS):
        found, state = way(caller, piece, state)
        logits.append(found)
    return torch.cat(logits, 1), state


def _spread(caller: Caller, way: Way, more: Tensor, state: State) -> float:
    """How far the answers of three rows that share a state, as choices after a question do, are from that of the row alone."""
    alone, _ = way(caller, more, state)
    several = tree_map(lambda part: part.repeat_interleave(3, 0) if isinstance(part, Tensor) else part, state)
    found, _ = way(caller, more.repeat_interleave(3, 0), several)
    return difference(found, alone.repeat_interleave(3, 0))


def _fits(trial: _Trial, longest: int, read: int) -> None:
    needed = trial.state + trial.growth * max(0, longest - read)
    if needed > LARGEST_STATE:
        raise NotStreamable(
            f"The state grows by {trial.growth:,.0f} bytes a token and would hold {needed / 2**20:,.0f} MiB after "
            f"{longest:,} tokens: ask shorter lengths of this model, or take one with a fixed state."
        )


def _refusal(caller: Caller, trials: dict[str, _Trial]) -> str:
    figures = "; ".join(f"{name} {trial.fault or _figure(trial.error)}" for name, trial in trials.items())
    return (
        f"{_name(caller)} gives in pieces what the whole text does not give, so nothing can be asked of it: relative error, "
        f"bound {SPLIT:g}: {figures}. Take another version of transformers, or another model."
    )


def _name(caller: Caller) -> str:
    return type(caller.model).__name__


def _figure(error: float) -> str:
    return "none: it fails" if error == float("inf") else f"{error:.1e}"
