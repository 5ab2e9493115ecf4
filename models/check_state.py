"""The conformance kit's questions about state: cuts, reuse, rows, bytes, and the way to disk and back."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from models.check_subject import Finding, Subject, cut, difference, feed

SPLIT = 1e-4  # float32, relative: the contract's bound for a text in pieces
SAME = 1e-6  # relative: nothing but the last bit may differ
STATE_GRADIENT = 1e-3  # float32, relative
LONG = 4096


def split_single(subject: Subject) -> Finding:
    """Decoding token by token gives the logits of the whole; thorough: over 4,096 tokens."""
    if not subject.thorough:
        return _split(subject, range(subject.length))
    tokens = subject.tokens(1, max(LONG, subject.length))
    return _compare(subject, tokens, range(tokens.shape[1]), feed(subject.model, tokens)[0])


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


def _split(subject: Subject, cuts) -> Finding:
    return _compare(subject, subject.text, cuts, subject.logits)


def _compare(subject: Subject, tokens: Tensor, cuts, whole: Tensor) -> Finding:
    pieces = len(cut(tokens, cuts))
    error = difference(feed(subject.model, tokens, cuts)[0], whole)
    return error < SPLIT, error, f"{tokens.shape[1]} tokens in {pieces} pieces against the whole, below {SPLIT:g}"


def short(subject: Subject) -> Finding:
    """Texts of one token and of less than a chunk give the beginning of a longer text's logits."""
    lengths = sorted({1, 2, 3, max(1, subject.period - 1), subject.period, 63})
    error = max(difference(feed(subject.model, subject.text[:, :n])[0], subject.logits[:, :n]) for n in lengths)
    return error < SPLIT, error, f"texts of {', '.join(map(str, lengths))} tokens against a longer one, below {SPLIT:g}"


def untouched(subject: Subject) -> Finding:
    """A state passed in is not modified: used again, and again, it gives the same logits.

    A fixed state is compared number by number too; a growing one may be extended in place behind its filled part.
    """
    model, text = subject.model, subject.text
    start = max(subject.period, 5) + 3
    _, state = feed(model, text[:, :start], [start - 3])
    copy = _copied(state)
    first, _ = feed(model, text[:, start:], [start + 1])
    for piece in (text[:, start : start + 1], text.flip(1)[:, : start + 5], text[:, start:]):
        first, _ = feed(model, piece, [], copy_of(copy))
        again, after = feed(model, piece, [], state)
        feed(model, piece.flip(0), [], after)  # whoever goes on from the result must not reach back either
        third, _ = feed(model, piece, [], state)
        if not (torch.equal(first, again) and torch.equal(again, third)):
            error = max(difference(again, first), difference(third, first))
            return False, error, "the logits from a state differ when it is used again"
    if getattr(subject.mixer, "fixed_state", False):
        pairs = zip(tree_leaves(state), tree_leaves(copy), strict=True)
        if not all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs):
            return False, "modified", "numbers of the state passed in were changed in place"
    return True, 0.0, "three continuations from one state, each used three times"
