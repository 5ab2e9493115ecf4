"""The match: which inner width and depth bring a model to a number of parameters, of operations, or of bytes of state.

A mixer with the shell's SwiGLU keeps the depth and solves the SwiGLU's width; one that brings its own channel mixing solves the
depth and then its own inner width; one that alone is larger than the budget shrinks its own inner width until the SwiGLU has
its least width. Where only some layers of a model bring their own, the depth is solved and then the SwiGLU of the others. A state
is met by the setting that sets its size. This module only searches: what a shape weighs is counted by its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.shell.model import Shape
from schema.terms import MATCHES


@dataclass(frozen=True)
class Match:
    """What is made equal: "parameters", "state" or "flops".

    Parameters, and the FLOPs per token of training on texts of `flops_length` tokens, are the reference Transformer's; a state
    has `state_bytes` for one row of the batch, counted in float32. Raises ValueError for another word, and for a number that is
    missing or is not the match's.
    """

    by: str = "parameters"
    state_bytes: int | None = None
    flops_length: int | None = None

    def __post_init__(self):
        if self.by not in MATCHES:
            raise ValueError(f"match is one of {', '.join(MATCHES)}, not {self.by!r}.")
        for by, name in MATCHES.items():
            value = getattr(self, name) if name else None
            if name and by != self.by and value is not None:
                raise ValueError(f"match '{self.by}' takes no {name}; remove it, or match by '{by}'.")
            if name and by == self.by and (type(value) is not int or value < 1):
                raise ValueError(f"match '{by}' needs {name}, a whole number of at least 1, not {value!r}.")


PARAMETERS = Match()
STUBBORN = 3  # steps of a search that left more than half of the places; every second one then goes to the middle


class NoMatch(ValueError):
    """No shape of a model comes near the reference's parameters."""


def by_feed(count: Callable[[Shape], float], target: float, depth: int, width: int, unit: int | None) -> Shape:
    """The SwiGLU width that comes nearest to `target`; with a mixer beyond the budget, its inner width first.

    `unit` is the step of the mixer's inner width, None if it has no such setting.
    """
    least = max(8, width // 2)
    inner = None
    if unit is not None and count(Shape(depth, least)) > target:
        inner = _inner(lambda inner: count(Shape(depth, least, inner)), target, width, unit)
    feed = nearest(lambda feed: count(Shape(depth, feed, inner)), target, 1, 16 * width)
    return Shape(depth, feed, inner)


def by_depth(
    count: Callable[[Shape], float], target: float, depth: int, width: int, unit: int | None, least: int = 1
) -> Shape:
    """The depth, `least` or more, that comes nearest to `target` for mixers without SwiGLU, and then their inner width."""
    best = nearest(lambda depth: count(Shape(depth, 0)), target, least, max(8 * depth, least + 1))
    if unit is None:
        return Shape(best, 0)
    return Shape(best, 0, _inner(lambda inner: count(Shape(best, 0, inner)), target, width, unit))


def by_depth_and_feed(
    count: Callable[[Shape], float], target: float, depth: int, width: int, feed: int, least: int = 1
) -> Shape:
    """The depth that comes nearest to `target` with a SwiGLU of `feed` behind some mixers only, and then that one's width."""
    best = nearest(lambda depth: count(Shape(depth, feed)), target, least, max(8 * depth, least + 1))
    return Shape(best, nearest(lambda feed: count(Shape(best, feed)), target, 1, 16 * width))


def _inner(count: Callable[[int], float], target: float, width: int, unit: int) -> int:
    return unit * nearest(lambda units: count(units * unit), target, 1, max(2, 8 * width // unit))


def nearest(count: Callable[[int], float], target: float, low: int, high: int) -> int:
    """The argument in [low, high] at which the increasing function `count` comes nearest to `target`.

    It is looked for where a straight line through two known places has it, from the least on, as the largest may be a model of
    any size; in the middle where that brings little. A count that grows evenly is asked for a handful of times.
    """
    known: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in known:
            known[place] = count(place)
        return known[place]

    guess, slow, earlier, is_middle = low + 1, 0, low, False
    while low + 1 < high:
        before = high - low
        if at(guess) <= target:
            earlier, low = low, guess
        else:
            high = guess
        slow += 2 * (high - low) > before
        ends = (low, high) if high in known else (earlier, low)
        is_middle = slow > STUBBORN and not is_middle
        guess = (low + high) // 2 if is_middle else _on_line(at, target, *ends)
        guess = min(max(guess, low + 1), max(low + 1, high - 1))
    return min((low, high), key=lambda value: abs(at(value) - target))


def _on_line(at: Callable[[int], float], target: float, one: int, other: int) -> int:
    """Where the straight line through two places meets the target."""
    rise = at(other) - at(one)
    return one + int((target - at(one)) * (other - one) / rise) if rise > 0 else (one + other) // 2
