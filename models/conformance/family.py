"""The conformance kit's question about a family: what moves a state's transition, and whether it compares.

A memory is read as a map from the state before some tokens to the state after them. Two states that differ in the memory alone
are fed the same tokens; how their difference comes out is the map's transition, whatever the class calls its parts.

    first generation     the transition does not depend on the tokens
    second generation    it does, and every number of the state keeps to itself: decays, no comparison
    third generation     what is stored changes what is written: numbers of the state mix, by way of the key
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from models.conformance.subject import Finding, Subject

NOTHING = 2e-5  # relative: rounding of a transition in float32
TRANSIENT = 8  # what no trace is left of after so many tokens is a convolution's window, not the memory
ASKED = ("first_generation", "second_generation", "third_generation")


def family(subject: Subject) -> Finding:
    """The model's transition is that of the generation whose folder it lies in.

    A class that is of a generation for another reason says so, `family_exception = "reason"`, which is printed.
    """
    generation, excuse = subject.entry.family, getattr(subject.mixer, "family_exception", "")
    if generation not in ASKED or subject.entry.is_language_model:
        return (
            True,
            "not asked",
            "only a token mixer of the first, second or third generation claims a kind of transition",
        )
    passed, figure, detail = _judged(subject, generation)
    if not excuse:
        return passed, figure, detail
    if passed:
        return False, figure, f"family_exception = {excuse!r} excuses nothing: {detail}"
    return True, "excepted", f"excepted, {excuse}; {detail}"


def _judged(subject: Subject, generation: str) -> Finding:
    moves, mixes = _transition(subject.mixer, subject.period, subject.size.width)
    says = f"the transition moves with the input by {moves:.1e} and mixes the state's numbers by {mixes:.1e}"
    if generation == "first_generation":
        return moves <= NOTHING, moves, f"{says}; a first generation's must not move"
    if generation == "second_generation":
        passed = moves > NOTHING and mixes <= NOTHING
        return passed, moves, f"{says}; a second generation's must move and must not mix, which is comparing"
    return mixes > NOTHING, mixes, f"{says}; a third generation compares what it stores, which mixes"


@torch.no_grad()
def _transition(mixer: nn.Module, period: int, width: int) -> tuple[float, float]:
    """How far the transition differs from tokens to tokens, and how far a part of the memory reaches the rest.

    Both relative to what was changed in the memory, over one token and over one period, whichever shows more.
    """
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randn(1, max(period, TRANSIENT), width, generator=draw) for _ in range(3)]
    _, state = mixer(texts[0][:, :period] if period > 1 else texts[0], None)
    memory = _memory(mixer, state, texts[1][:, :TRANSIENT], draw)
    changes = [_noise(leaf, draw) if kept else None for leaf, kept in zip(tree_flatten(state)[0], memory, strict=True)]
    some = [None if change is None else torch.rand(change.shape, generator=draw) < 0.5 for change in changes]
    moves = mixes = 0.0
    for length in (1, period):
        one, other = (_response(mixer, state, changes, text[:, :length]) for text in texts[1:])
        moves = max(moves, _ratio([a - b for a, b in zip(one, other, strict=True)], changes))
        part = [None if change is None else change * mask for change, mask in zip(changes, some, strict=True)]
        reached = _response(mixer, state, part, texts[1][:, :length])
        beyond = [r * ~mask for r, mask in zip(reached, (m for m in some if m is not None), strict=True)]
        mixes = max(mixes, _ratio(beyond, part))
    return moves, mixes


def _noise(leaf: Tensor, draw: torch.Generator) -> Tensor:
    """Random numbers, complex where the leaf's are, as large as those of the leaf."""
    kind = leaf.dtype if leaf.is_complex() else torch.float32
    return torch.randn(leaf.shape, generator=draw, dtype=kind) * leaf.abs().square().mean().sqrt().clamp_min(1e-3)


def _memory(mixer: nn.Module, state: Any, x: Tensor, draw: torch.Generator) -> list[bool]:
    """Which leaves of a state hold a trace of themselves after the tokens x. Raises ValueError if none does."""
    leaves, kept = tree_flatten(state)[0], []
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()) or not leaf.numel():
            kept.append(False)
            continue
        noise = _noise(leaf, draw)
        changes = [noise if place == index else None for place in range(len(leaves))]
        kept.append(bool(_response(mixer, state, changes, x)[0].any()))
    if not any(kept):
        raise ValueError(f"Nothing in the state outlives {TRANSIENT} tokens; a recurrence of any generation does.")
    return kept


def _response(mixer: nn.Module, state: Any, changes: list[Tensor | None], x: Tensor) -> list[Tensor]:
    """By how much the changed leaves of a state differ after the tokens x from what they would be unchanged."""
    leaves, form = tree_flatten(state)
    changed = [leaf if change is None else leaf + change for leaf, change in zip(leaves, changes, strict=True)]
    after, after_change = (tree_flatten(mixer(x, tree_unflatten(given, form))[1])[0] for given in (leaves, changed))
    return [
        theirs - ours for ours, theirs, change in zip(after, after_change, changes, strict=True) if change is not None
    ]


def _ratio(found: list[Tensor], changes: list[Tensor | None]) -> float:
    """The norm of what was found over that of the changes."""
    size = torch.stack([change.norm() for change in changes if change is not None]).norm()
    return (torch.stack([part.norm() for part in found]).norm() / size).item()
