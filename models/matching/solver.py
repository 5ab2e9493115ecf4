"""The shape at which a model stands on equal terms with the others: equal parameters, state bytes or training FLOPs.

Every model has its parameter match, or is refused. A match by state or FLOPs takes its place where the model comes within the
tolerance; a model that says no `flops`, whose state grows or has no setting, or that stays beyond, keeps its parameter match. How
far each model is from what was aimed at is counted anew from the model itself, wherever its numbers are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from models import registry
from models.matching.counts import largest_state, parameter_count, training_flops
from models.matching.match import PARAMETERS, Match, NoMatch, by_depth, by_depth_and_feed, by_feed, nearest
from models.matching.shapes_only import shapes_only
from models.ops.providers import probing
from models.shell.model import Shape, Size, assemble, unsolved
from schema.settings import parameters
from schema.terms import state_tolerance, tolerance

SETTLED = 16  # tokens after which a short convolution's tail is full, whatever the model's period
HIGHEST = 8  # times the model's width: the largest inner width, or number of states, that is tried

REFERENCE = "transformer"  # the model whose parameters all others are matched to
ROUNDS = 4  # of solving state and parameters in turn, where the depth of a mixer without SwiGLU moves both

Count = Callable[[Shape], float]


@dataclass(frozen=True)
class Candidate:
    """A model to be shaped.

    `unit` and `state_unit` are the steps of its inner width and of the setting of its state, None where these are not open.
    `least` is the least depth that holds its layers; `is_depth_open` says that the depth is solved though there is a SwiGLU, and
    `is_uniform` that all blocks weigh the same but perhaps the first.
    `sample` gives a small model with one block's state, and how many of these the shape's model has.
    """

    name: str
    size: Size
    start: Shape
    width: int
    unit: int | None
    state_unit: int | None
    state_is_inner: bool
    least: int
    is_depth_open: bool
    is_uniform: bool
    assemble: Callable[[Shape], nn.Module]
    sample: Callable[[Shape], tuple[nn.Module, int]]
    assembled: dict[Shape, nn.Module] = field(default_factory=dict)  # without memory for their weights
    counted: dict[Shape, int] = field(default_factory=dict)
    weighed: dict[Shape, tuple[int, int, int]] = field(default_factory=dict)

    def nearest(self, count: Count, target: float, unit: int | None) -> Shape:
        """The shape whose count comes nearest to the target, by depth or SwiGLU width and then in steps of inner width."""
        asked = count, target, self.start.depth, self.width
        if self.is_depth_open:
            return by_depth_and_feed(*asked, self.start.feed, self.least)
        return by_feed(*asked, unit) if self.start.feed else by_depth(*asked, unit, self.least)

    def parameters(self, shape: Shape) -> int:
        """Learned numbers outside the embedding; counted once."""
        if shape not in self.counted:
            self.counted[shape] = parameter_count(self.model(shape))
        return self.counted[shape]

    def model(self, shape: Shape) -> nn.Module:
        """The model of a shape without memory for its weights, built once."""
        if shape not in self.assembled:
            with shapes_only():
                self.assembled[shape] = self.assemble(shape)
        return self.assembled[shape]

    def estimate(self, shape: Shape) -> int:
        """The same from two blocks, as if every further one were like the second, and every SwiGLU unit like their first.

        A search asks for many depths and widths, of which so nothing more is built.
        """
        if not self.is_uniform:
            return self.parameters(shape)
        one, more, unit = self.parts(replace(shape, depth=2, feed=min(shape.feed, 1)))
        return one + more * (shape.depth - 1) + unit * shape.depth * max(shape.feed - 1, 0)

    def parts(self, pair: Shape) -> tuple[int, int, int]:
        """Learned numbers of a model of two blocks: without its second block, in that block, in a unit of their SwiGLU of one."""
        if pair not in self.weighed:
            first, second = self.model(pair).blocks
            known = {id(parameter) for parameter in first.parameters()}  # what both share is the first one's
            more = sum(parameter.numel() for parameter in second.parameters() if id(parameter) not in known)
            unit = sum(parameter.numel() for parameter in first.feed.parameters()) if pair.feed else 0
            self.weighed[pair] = self.parameters(pair) - more, more, unit
        return self.weighed[pair]

    def matching(self, target: int, unit: int | None, state: int | None = None) -> Shape:
        """The shape whose parameters come nearest to the target, with the state's setting at `state`."""

        def found(count: Callable[[Shape], int]) -> Shape:
            shape = self.nearest(lambda shape: count(replace(shape, state=state)), target, unit)
            return replace(shape, state=state)

        shape = found(self.estimate)
        return shape if self.parameters(shape) == self.estimate(shape) else found(self.parameters)

    def flops(self, shape: Shape, length: int) -> float | None:
        """Operations per token of training on texts of `length` tokens; None without a formula."""
        with shapes_only():
            return training_flops(self.assemble(shape), length)

    def state(self, shape: Shape, is_rough: bool = False) -> int:
        """Most bytes of one row's state over a period, token by token; roughly: at its beginning, before its end and at its end.

        Computed on the CPU, leaving no trace in random numbers or providers.
        """
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), probing():
            model, times = self.sample(shape)
            start, piece = max(model.period, SETTLED), max(1, model.period - 1) if is_rough else 1
            return times * largest_state(model, torch.zeros(1, start + model.period, dtype=torch.long), start, piece)


def solve(entry: registry.Entry, size: Size, settings: dict[str, Any], match: Match = PARAMETERS) -> Shape:
    """The shape that brings a model nearest to what is matched. Raises NoMatch beyond the tolerance of parameters."""
    return solved(entry, size, settings, match)[0]


def solved(
    entry: registry.Entry, size: Size, settings: dict[str, Any], match: Match = PARAMETERS
) -> tuple[Shape, nn.Module | None]:
    """`solve`, and the model of that shape without memory for its weights, where the search has built it."""
    question = (entry, size, repr(sorted(settings.items())), match)
    if question not in _solved:
        sought = candidate(entry, size, settings)
        shape = _shape(sought, match)
        is_whole = not entry.adds_memory  # else what is sought is the model that the memory is added to
        _solved[question] = shape, sought.assembled.get(shape) if is_whole else None
    return _solved[question]


_solved: dict[tuple, tuple[Shape, nn.Module | None]] = {}  # a search builds several models


def candidate(entry: registry.Entry, size: Size, settings: dict[str, Any]) -> Candidate:
    """A model as the search for its shape sees it; settings that the user gives are not solved.

    A memory is no part of that: the shape is that of the model that it is added to.
    """
    entry, settings = entry.trained_as(settings)
    own, setting = parameters(entry.cls), getattr(entry.cls, "state_setting", "inner")
    unit, says = 2 * size.heads, partial(entry.says, settings=settings)
    has_state = says("fixed_state", default=False) and setting in own and setting not in settings
    start = unsolved(entry, size, settings)
    return Candidate(
        name=entry.name,
        size=size,
        start=start,
        width=size.width,
        unit=unit if "inner" in own and "inner" not in settings else None,
        state_unit=(unit if setting == "inner" else 1) if has_state else None,
        state_is_inner=setting == "inner",
        least=says("least_depth", default=1),
        is_depth_open=bool(start.feed) and says("solves_depth", default=False),
        is_uniform=not entry.is_language_model,
        assemble=partial(assemble, entry, size, settings=settings),
        sample=partial(_sample, entry, size, settings),
    )


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
    return assemble(entry, size, unsolved(entry, size), {})


def reference_parameters(size: Size) -> int:
    """Non-embedding parameters of the reference Transformer at this size."""
    question = (registry.entry(REFERENCE), size)
    if question not in _counted:
        with shapes_only():
            _counted[question] = parameter_count(_reference(size))
    return _counted[question]


_counted: dict[tuple, int] = {}  # every model is held against it


def _shape(candidate: Candidate, match: Match) -> Shape:
    """The shape at which `match` holds, or parameters where it cannot. Raises NoMatch where these cannot be matched either."""
    shape = None
    if match.by == "flops":
        shape = _by_flops(candidate, match.flops_length)
    elif match.by == "state":
        shape = _by_state(candidate, match.state_bytes)
    return shape or _by_parameters(candidate)


def _by_parameters(candidate: Candidate) -> Shape:
    target = reference_parameters(candidate.size)
    shape = candidate.matching(target, candidate.unit)
    count = candidate.parameters(shape)
    if not _near(count, target, tolerance(target)):
        raise NoMatch(
            f"Model '{candidate.name}' cannot be matched at {candidate.size}: the nearest has {count:,} parameters ({shape}) and "
            f"the reference Transformer {target:,}; {_advice(candidate, shape, count / target)}, or build with match=False."
        )
    return shape


def _advice(candidate: Candidate, shape: Shape, too_large: float) -> str:
    """What brings a model that cannot be matched nearer: a depth that holds its layers, where that is what it lacks."""
    if too_large > 1 and shape.depth == candidate.least > 1:
        return f"its {shape.depth} layers need a size of depth {math.ceil(candidate.start.depth * too_large)} or more"
    return "change the size or its settings"


def _by_flops(candidate: Candidate, length: int) -> Shape | None:
    if candidate.flops(candidate.start, length) is None:
        return None
    with shapes_only():
        target = training_flops(_reference(candidate.size), length)
    shape = candidate.nearest(lambda shape: candidate.flops(shape, length), target, candidate.unit)
    within = tolerance(reference_parameters(candidate.size))
    return shape if _near(candidate.flops(shape, length), target, within) else None


def _by_state(candidate: Candidate, target: int) -> Shape | None:
    if candidate.state_unit is None:
        return None
    parameters, step = reference_parameters(candidate.size), candidate.state_unit
    unit = None if candidate.state_is_inner else candidate.unit

    def matched(steps: int) -> Shape:
        """The parameter match with so large a state."""
        return candidate.matching(parameters, unit, steps * step)

    def error(shape: Shape) -> int:
        return abs(candidate.state(shape, is_rough=True) - target)

    found, draft, highest = [], candidate.start, max(2, HIGHEST * candidate.width // step)
    for _ in range(ROUNDS):
        state = partial(_state_of, candidate, draft, step)
        draft = matched(nearest(state, target, 1, highest))
        is_depth_kept = candidate.start.feed and not candidate.is_depth_open
        if is_depth_kept or draft in found:
            break  # a SwiGLU's width is no part of the state
        found.append(draft)
    shape = min([*found, draft], key=error)
    is_near = _near(candidate.state(shape), target, state_tolerance(target))
    return shape if is_near and _near(candidate.parameters(shape), parameters, tolerance(parameters)) else None


def _state_of(candidate: Candidate, draft: Shape, step: int, steps: int) -> int:
    return candidate.state(replace(draft, state=steps * step), is_rough=True)


def _near(found: float, target: float, within: float) -> bool:
    return abs(found - target) <= within * target
