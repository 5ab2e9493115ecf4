"""What a model's forward pass keeps for its backward pass, counted in a small model that is run once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models import registry
from models.matching.counts import state_bytes
from models.matching.match import PARAMETERS, Match
from models.matching.solver import solve
from models.ops.providers import probing
from models.shell.model import LanguageModel, Shape, Size, assemble
from runner.build import at_one_vocabulary
from schema.settings import parameters

PROBED = 128  # width of the model that is run to see what is kept for a backward pass, where the asked one is wider
SHORTEST = 128  # tokens of the text that shows what a forward pass keeps
SHORT = 1024  # tokens of a text up to which one of another length is as good
NARROW = 64  # the widest window that is run: one in which attention is full over a text takes time with its square


class Kept(NamedTuple):
    """Bytes: for each token what a forward pass keeps for its backward pass, and the state that it returns; and, however many
    the tokens are, the masks of windows, which all rows and heads share."""

    passes: float
    state: float
    masks: float = 0.0

    def of(self, tokens: float) -> float:
        """What is kept for the backward pass of so many tokens."""
        return tokens * self.passes + self.masks


def at_most_again(kept: float, head: float, depth: int, inputs: float, state: float) -> float:
    """Bytes that a step whose blocks are computed again holds at most, besides weights, gradients and optimiser.

    Each block keeps its input (`inputs` bytes of one block). Beside these there are in turn the states of all blocks with what
    the last one computes, about half of what it would keep; what the head's gradient takes (`head`); and what one block keeps.
    """
    return depth * inputs + max(state + kept / depth / 2, head, kept / depth)


def _shape(name: str, size: Size, settings: str, match: Match) -> Shape:
    """The solved shape, which no vocabulary changes: at one vocabulary for all, as a search for it takes a while."""
    return solve(registry.entry(name), at_one_vocabulary(size), json.loads(settings), match)


@cache
def kept_per_token(name: str, size: Size, settings: str, match: Match = PARAMETERS, longest: int = 2**62) -> Kept:
    """What a model's forward pass keeps for its backward pass, and its state, for each token of a text of two periods or more.

    Of texts of at most `longest` tokens, where two periods are more: an attention window as long as they are is never full.
    Counted in a model of its least depth (of twice that where its blocks are not all alike), at most PROBED wide with heads of
    the same width: what is kept grows in equal steps with depth and with the number of heads. Nothing is compiled for it: the
    compiled forms keep as much or less. Logits are no part of it, so a size of one vocabulary serves the cells of all tasks.
    Windows wider than NARROW, and texts with them, are run so much narrower: masks alone grow faster, with the window's square.
    """
    own, entry = json.loads(settings), registry.entry(name)
    if "provider" in own:
        own["provider"] = "auto"  # the one asked for may need another device, and keeps about as much
    shape = _shape(name, size, settings, match)
    least = max(SHORTEST, 2 * (own.get("store_every") or 0))
    own, longest, narrowed = _narrower(entry, own, longest, least)
    heads = max(1, size.heads * PROBED // size.width) if size.width > PROBED else size.heads
    share = heads / size.heads
    small = replace(size, width=size.width // size.heads * heads, heads=heads)
    if share < 1:
        inner = shape.inner and max(2 * heads, round(shape.inner * share / (2 * heads)) * 2 * heads)
        shape = replace(shape, feed=round(shape.feed * share), inner=inner)

    def built(depth: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return assemble(entry, replace(small, depth=depth), replace(shape, depth=depth), own)

    def kept(model: nn.Module) -> tuple[Kept, Kept]:
        return _kept(model, min(longest, max(least, 2 * model.period)), min(longest, own.get("window", 0)))

    passes, state, masks = _at_depth(built, shape.depth, entry.says("least_depth", own, 1), kept)
    return Kept(passes / share, state / share, masks * narrowed**2)


def _narrower(
    entry: registry.Entry, own: dict[str, Any], longest: int, least: int
) -> tuple[dict[str, Any], int, float]:
    """The settings with which a window is run, the longest text with them, and how much narrower than asked it is.

    As narrow as NARROW where texts fill it twice; else only so much that its share of a text, of `least` tokens or more, stays.
    """
    known = parameters(entry.cls)
    window = own.get("window", known["window"].default) if "window" in known else None
    if not isinstance(window, int):  # some models take None, and decide by themselves
        return own, longest, 1.0
    is_filled = longest >= 2 * window
    narrowed = max(1.0, window / NARROW if is_filled else min(longest / least, window / NARROW))
    own = own | {"window": round(window / narrowed)}
    return own, longest if is_filled else round(longest / narrowed), narrowed


def _at_depth(
    built: Callable[[int], nn.Module], depth: int, step: int, kept: Callable[[nn.Module], tuple[Kept, Kept]]
) -> Kept:
    """What is kept at `depth`, from a model of `step` blocks, or of that and of twice as many where blocks differ."""
    model = built(step)
    whole, in_blocks = kept(model)
    if type(model) is LanguageModel:
        more = Kept(in_blocks.passes, whole.state, in_blocks.masks)
    elif depth <= step:
        return whole
    else:
        more = Kept(*(two - one for one, two in zip(whole, kept(built(2 * step))[0], strict=True)))
    return Kept(*(one + further * (depth / step - 1) for one, further in zip(whole, more, strict=True)))


def _kept(model: nn.Module, length: int, window: int) -> tuple[Kept, Kept]:
    """What one model's forward pass keeps of a text of so many tokens: in all, and of that in its blocks.

    A mask is what no learned number has a part in, of no row or head by itself, with a line for each token of a window.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held to the end, so that no other takes the place of one
    inside, masks = set[int](), set[int]()
    within = 0

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in kept:
            kept[storage._cdata] = storage
            inside.update([storage._cdata] if within else [])
            is_mask = not tensor.requires_grad and tensor.dim() == 2 and tensor.shape[1] >= tensor.shape[0] == window
            masks.update([storage._cdata] if is_mask else [])
        return tensor

    def step_in(*_: Any) -> None:
        nonlocal within
        within += 1

    def step_out(*_: Any) -> None:
        nonlocal within
        within -= 1

    for block in getattr(model, "blocks", ()):
        block.register_forward_pre_hook(step_in)
        block.register_forward_hook(step_out)
    tokens = torch.zeros(1, length, dtype=torch.long)
    with probing(), torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held):
        _, state = model(tokens)

    def weigh(some: set[int]) -> int:
        return sum(kept[one].nbytes() for one in some)

    whole = Kept(weigh(kept.keys() - masks) / length, state_bytes(state) / length, weigh(masks))
    return whole, Kept(weigh(inside - masks) / length, 0.0, weigh(inside & masks))
