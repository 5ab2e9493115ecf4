"""How a text is read by a model of transformers that is not right in every piece: the ways, and which of them is right.

Some classes are wrong, and silent, in a piece of several tokens after a state (Mamba and FalconMamba begin their scan anew),
others in a single token (Zamba2 reads it by another law than a text). Each way avoids one such fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.oracles.adapters.carried_state import Caller, Kept, given_back, keep

HELD = 2  # tokens that the second way reads again, so that it never reads one alone


class State(NamedTuple):
    """What was read: the carried state behind all tokens but those `held` [b, k], which are read anew; None before any."""

    kept: Kept | None
    held: Tensor

    @property
    def seen(self) -> int:
        """How many tokens were read."""
        return self.held.shape[1] + (self.kept.seen if self.kept else 0)


Way = Callable[[Caller, Tensor, State], tuple[Tensor, State]]


def beginning(tokens: Tensor) -> State:
    """The state before the first of tokens [b, t]."""
    return State(None, tokens[:, :0])


def in_pieces(caller: Caller, tokens: Tensor, state: State) -> tuple[Tensor, State]:
    """Every piece in one call."""
    return _read(caller, [tokens], state)


def token_by_token(caller: Caller, tokens: Tensor, state: State) -> tuple[Tensor, State]:
    """Every token in a call of its own."""
    return _read(caller, tokens.split(1, 1), state)


def token_by_token_after_the_first_piece(caller: Caller, tokens: Tensor, state: State) -> tuple[Tensor, State]:
    """The first piece in one call, and every token after it in a call of its own."""
    return _read(caller, [tokens] if state.kept is None else tokens.split(1, 1), state)


def in_pieces_of_several(caller: Caller, tokens: Tensor, state: State) -> tuple[Tensor, State]:
    """Pieces of two tokens or more: the last two stay out of the state, and are read again with the token that comes."""
    together = torch.cat([state.held, tokens], 1)
    kept, new, first = state.kept, tokens.shape[1], together.shape[1] - HELD
    if first < HELD:
        # A text of one token is read with another behind it, which no logits before it know of.
        read = together if together.shape[1] > 1 else together.repeat(1, 2)
        logits = _read(caller, [read], State(kept, tokens[:, :0]))[0][:, : together.shape[1]]
        return logits[:, -new:], State(kept, together)
    front, middle = _read(caller, [together[:, :first]], State(kept, tokens[:, :0]))
    back, _ = _read(caller, [together[:, first:]], middle)
    return torch.cat([front, back], 1)[:, -new:], State(middle.kept, together[:, first:])


WAYS: dict[str, Way] = {  # the quickest first
    "in pieces": in_pieces,
    "in pieces of two tokens or more": in_pieces_of_several,
    "token by token after the first piece": token_by_token_after_the_first_piece,
    "token by token": token_by_token,
}


def _read(caller: Caller, pieces: list[Tensor] | tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
    """Logits of pieces that follow `state`, and the state behind them; what is passed in stays as it was."""
    carried = given_back(state.kept) if state.kept else None
    seen, logits = state.kept.seen if state.kept else 0, []
    for piece in _short(caller, pieces):
        found, carried = caller(piece, carried, seen)
        seen += piece.shape[1]
        logits.append(found)
    rows, none = len(pieces[0]), pieces[0][:, :0]
    return torch.cat(logits, 1), State(keep(carried, rows, seen), none)


def _short(caller: Caller, pieces: list[Tensor] | tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Pieces of no more tokens than RWKV's kernel reads in one call, which its configuration says."""
    most = getattr(caller.model.config, "context_length", None)
    for piece in pieces:
        parts = -(-piece.shape[1] // most) if isinstance(most, int) and most > 0 else 1
        yield from piece.tensor_split(parts, 1)  # parts of about one length, none of a single token
