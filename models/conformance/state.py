"""The conformance kit's questions about state: cuts, reuse, rows, bytes, and the way to disk and back."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from models.conformance.subject import Finding, Subject, cut, difference, feed, first_apart
from models.matching.counts import largest_state

SPLIT = 1e-4  # float32, relative: the contract's bound for a text in pieces
FAULT = 1e-6  # relative: a text in pieces in float64, where some gates are still rounded to float32
ROUNDINGS = 4  # the error of pieces over float32's own on the whole text; both are extremes of some thousand places
STATE_GRADIENT = 1e-3  # float32, relative
LONG = 4096
STRETCH = 256  # tokens over which even a model that amplifies rounding keeps its digits in float64
LATE = 512  # what goes wrong in longer texts only is not seen in two periods


def split_single(subject: Subject) -> Finding:
    """Decoding token by token gives the logits of the whole; thorough: over 4,096 tokens.

    So many tokens meet places where a norm stands on almost nothing, and float32's rounding passes the bound. What is above it
    is laid to rounding only if it vanishes in float64, and is no more than float32 makes of the whole text itself. A model that
    says that it `amplifies_rounding` is asked stretch by stretch, each from the state that the whole text has left.
    """
    if not subject.thorough:
        return _split(subject, range(subject.length))
    tokens = subject.tokens(1, max(LONG, subject.length))
    if why := getattr(subject.mixer, "amplifies_rounding", ""):
        return _stretches(subject, tokens, why)
    cuts, whole = range(tokens.shape[1]), feed(subject.model, tokens)[0]
    passed, error, detail = _compare(subject, tokens, cuts, whole)
    if passed:
        return passed, error, detail
    exact = copy.deepcopy(subject.model).double()
    right = feed(exact, tokens)[0]
    rounding, fault = difference(whole, right), difference(feed(exact, tokens, cuts)[0], right)
    passed = fault < FAULT and error < ROUNDINGS * rounding
    detail += (
        f", or below {FAULT:g} in float64 ({fault:.1e}) and {ROUNDINGS} times the whole's rounding ({rounding:.1e})"
    )
    return passed, error, detail


def _stretches(subject: Subject, tokens: Tensor, why: str) -> Finding:
    """In float64 token by token against whole stretches of the text, so that no difference is carried further."""
    exact, state, worst = copy.deepcopy(subject.model).double(), None, 0.0
    for piece in tokens.split(STRETCH, dim=1):
        whole, after = feed(exact, piece, state=state)
        worst = max(worst, difference(feed(exact, piece, range(piece.shape[1]), state=state)[0], whole))
        state = after
    stretches = f"{tokens.shape[1]} tokens in stretches of {STRETCH}, token by token against each whole"
    return worst < FAULT, worst, f"{stretches}, below {FAULT:g} in float64: {why}"


def split_37(subject: Subject) -> Finding:
    """Pieces of 37 tokens, which fit no chunk."""
    return _split(subject, range(0, subject.length, 37))


def split_period(subject: Subject) -> Finding:
    """Cuts before, at and after every period: all of them in one text, and each alone."""
    period = subject.period if subject.period > 1 else 64
    kinds = [[shift] for shift in (-1, 0, 1)] + [[-1, 0, 1]]
    findings = []
    for shifts in kinds:
        cuts = [place + shift for place in range(period, subject.length + 2, period) for shift in shifts]
        findings.append(_split(subject, cuts))
    return max(findings, key=lambda finding: finding[1])


def split_random(subject: Subject) -> Finding:
    """Twelve cuts at random places."""
    return _split(subject, random.Random(0).sample(range(1, subject.length), 12))


def split_late(subject: Subject) -> Finding:
    """Cuts at and beyond token 512, and beyond two periods."""
    late = max(LATE, 2 * subject.period)
    tokens = subject.tokens(1, late + 149)
    cuts = [5, late - 12, late, late + 1, late + 48, late + 128]
    return _compare(subject, tokens, cuts, feed(subject.model, tokens)[0])


def _split(subject: Subject, cuts: Iterable[int]) -> Finding:
    return _compare(subject, subject.text, cuts, subject.logits)


def _compare(subject: Subject, tokens: Tensor, cuts: Iterable[int], whole: Tensor) -> Finding:
    pieces, logits = cut(tokens, cuts), feed(subject.model, tokens, cuts)[0]
    error = difference(logits, whole)
    detail = f"{tokens.shape[1]} tokens in {len(pieces)} pieces against the whole, below {SPLIT:g}"
    if not error < SPLIT:
        token, starts = first_apart(logits, whole, SPLIT), list(accumulate(piece.shape[1] for piece in pieces))
        behind = max((start for start in starts if start <= token), default=0)
        detail = f"differs from token {token} on, {token - behind} behind the cut at {behind}; {detail}"
    return error < SPLIT, error, detail


def short(subject: Subject) -> Finding:
    """Texts of one token and of less than a chunk give the beginning of a longer text's logits."""
    lengths = sorted({1, 2, 3, max(1, subject.period - 1), subject.period, 63})
    worst, detail = 0.0, f"texts of {', '.join(map(str, lengths))} tokens against a longer one, below {SPLIT:g}"
    for n in lengths:
        logits, longer = feed(subject.model, subject.text[:, :n])[0], subject.logits[:, :n]
        worst = max(worst, error := difference(logits, longer))
        if not error < SPLIT:
            token = first_apart(logits, longer, SPLIT)
            return False, worst, f"a text of {n} tokens differs from a longer one at token {token}; {detail}"
    return True, worst, detail


def untouched(subject: Subject) -> Finding:
    """A state passed in is not modified: used again, and again, it gives the same logits.

    A fixed state is compared number by number too; a growing one may be extended in place behind its filled part.
    """
    model, text = subject.model, subject.text
    start = max(subject.period, 5) + 3
    _, state = feed(model, text[:, :start], [start - 3])
    kept = _copied(state)
    for piece in (text[:, start : start + 1], text.flip(1)[:, : start + 5], text[:, start:]):
        expected, _ = feed(model, piece, state=_copied(kept))
        for _ in range(2):
            logits, after = feed(model, piece, state=state)
            if not torch.equal(logits, expected):
                token = first_apart(logits, expected, 0.0)
                detail = f"a state that was used before gives other logits, from token {token} behind it on"
                return False, difference(logits, expected), detail
            feed(model, piece.flip(0), state=after)  # whoever goes on from the result must not reach back either
    if getattr(subject.mixer, "fixed_state", False):
        for leaf, copy in zip(tree_leaves(state), tree_leaves(kept), strict=True):
            if not (torch.equal(leaf, copy) if isinstance(leaf, Tensor) else leaf == copy):
                return False, "modified", "numbers of a state passed in were changed in place"
    return True, 0.0, "one state under three continuations, each fed twice, against copies of it"


def _copied(state: Any) -> Any:
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, state)


def batch_first(subject: Subject) -> Finding:
    """A state is a tree of batch-first tensors and plain integers: its rows can be chosen and repeated."""
    model = subject.model
    text = subject.tokens(5, subject.length)  # five, so that no head or channel count passes for the rows
    start = subject.period + 3
    _, state = feed(model, text[:, :start])
    for leaf in tree_leaves(state):
        if isinstance(leaf, Tensor):
            if leaf.dim() == 0 or leaf.shape[0] != len(text):
                return False, str(tuple(leaf.shape)), f"a tensor of the state of {len(text)} rows is not batch-first"
        elif leaf is not None and type(leaf) is not int:
            return False, type(leaf).__name__, "the state holds something that is neither a tensor nor a plain integer"
    rows = torch.tensor([1, 0, 4, 1])
    chosen = tree_map(lambda leaf: leaf[rows] if isinstance(leaf, Tensor) else leaf, state)
    error = difference(
        feed(model, text[rows, start:], state=chosen)[0], feed(model, text[:, start:], state=state)[0][rows]
    )
    return error < SPLIT, error, f"rows 1, 0, 4, 1 of a state of five, below {SPLIT:g}"


def bounded(subject: Subject) -> Finding:
    """The largest state over one period does not grow with the context, where the class says `fixed_state = True`."""
    claim = getattr(subject.mixer, "fixed_state", None)
    if not isinstance(claim, bool):
        return False, "unsaid", "the class must say fixed_state = True or fixed_state = False"
    period = max(subject.period, 16)
    later = (64 if subject.thorough else 8) * period
    tokens = subject.tokens(1, later + period)
    early, late = (largest_state(subject.model, tokens[:, : place + period], place) for place in (2 * period, later))
    figure = f"{late - early:+d} bytes"
    if claim:
        detail = (
            f"largest over {period} tokens: {early:,} bytes from token {2 * period:,}, {late:,} from token {later:,}"
        )
        return late <= early, figure, detail
    detail = f"declared as growing: {early:,} bytes from token {2 * period:,}, {late:,} from token {later:,}"
    if late <= early:
        detail = f"fixed_state = False says that the state grows, and it does not; {detail}"
    return late > early, figure, detail


def carries_gradient(subject: Subject) -> Finding:
    """A state is not detached: parameters get the same gradient from a text in pieces as from the whole."""
    parameters = dict(subject.model.named_parameters())
    place = subject.period // 2 + 5
    cuts = [place, place + 1, place + 38, subject.length - 7]
    whole = _gradients(subject, parameters, [])
    pieces = _gradients(subject, parameters, cuts)
    # The floor keeps a gradient that is rounding noise from being compared with itself.
    floor = 1e-3 * torch.stack([g.norm() for g in whole]).norm().item()
    errors = [((a - b).norm() / (b.norm() + floor)).item() for a, b in zip(pieces, whole, strict=True)]
    error, name = max(zip(errors, parameters, strict=True))
    detail = f"largest for {name}, {len(cuts) + 1} pieces against the whole, below {STATE_GRADIENT:g}"
    return all(e < STATE_GRADIENT for e in errors), error, detail


def _gradients(subject: Subject, parameters: dict[str, nn.Parameter], cuts: Iterable[int]) -> list[Tensor]:
    """Gradients of a fixed random sum of the last logits, which only the state ties to the earlier pieces."""
    state = None
    for piece in cut(subject.text, cuts):
        logits, state = subject.model(piece, state)
    weights = torch.randn(logits.shape[2], generator=torch.Generator().manual_seed(0))
    value = (logits[:, -1].float() * weights).sum()
    grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters.values(), grads, strict=True)]


def round_trip(subject: Subject) -> Finding:
    """Parameters through safetensors and a state through torch.save come back with bitwise equal logits."""
    model, text = subject.model, subject.text
    start = subject.period + 3
    other = subject.build(seed=1)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())))
    _, state = feed(model, text[:, :start])
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    expected = feed(model, text[:, start:], state=state)[0]
    error = difference(feed(other, text[:, start:], state=loaded)[0], expected)
    size = len(buffer.getvalue())
    return error == 0.0, error, f"a new model and a state of {size:,} bytes on disk, bitwise"
