"""The conformance kit's questions about how a model is called: in evaluation, with nothing, from a state of another dtype."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from models.conformance.subject import Finding, Subject, difference, feed, first_apart

SPLIT = 1e-4  # float32, relative: the contract's bound for a text in pieces
SAME = 1e-6  # relative: nothing but the last bit may differ
ROUNDED = 0.03  # relative: logits after a state that was rounded to bfloat16


def evaluation(subject: Subject) -> Finding:
    """After `model.eval()`, as evaluations call it: one answer to one text, the same in pieces, and no look at later tokens."""
    model, text = copy.deepcopy(subject.model).eval(), subject.text
    whole = feed(model, text)[0]
    if not torch.equal(feed(model, text)[0], whole):
        return False, "noise", "two calls in eval mode give different logits"
    changed = text.clone()
    place = max(subject.period, 20) // 2
    changed[:, place + 1 :] = (changed[:, place + 1 :] + 1) % subject.size.vocab
    leak = difference(feed(model, changed)[0][:, : place + 1], whole[:, : place + 1])
    if not leak <= SAME:
        return False, leak, f"in eval mode the logits up to token {place} move with later tokens, at most {SAME:g}"
    for cuts in (range(5), [subject.period + 1, subject.length - 9]):
        pieces = feed(model, text, cuts)[0]
        error = difference(pieces, whole)
        if not error < SPLIT:
            token = first_apart(pieces, whole, SPLIT)
            return False, error, f"in eval mode a text in pieces differs from the whole from token {token} on"
    return True, error, f"calls in eval mode: repeated, in pieces (below {SPLIT:g}), without a look ahead"


@torch.no_grad()
def empty(subject: Subject) -> Finding:
    """An empty piece gives logits [b, 0, vocab] and the state as it was; a batch without rows gives none."""
    model, text, vocab = subject.model, subject.text, subject.size.vocab
    start = subject.period // 2 + 5
    first, begun = model(text[:, :0])
    begin, state = model(text[:, :start], begun)
    none, after = model(text[:, :0], state)
    for logits in (first, none):
        if logits.shape != (len(text), 0, vocab):
            return False, str(tuple(logits.shape)), f"an empty piece gives logits of another shape than [b, 0, {vocab}]"
    if not _equal(state, after):
        return False, "changed", "an empty piece changes the state"
    pieces = torch.cat([begin, model(text[:, start:], after)[0]], 1)
    if not (error := difference(pieces, subject.logits)) < SPLIT:
        token = first_apart(pieces, subject.logits, SPLIT)
        return False, error, f"with empty pieces in it a text differs from the whole from token {token} on"
    some, state = model(text[:0, :start])
    more, _ = model(text[:0, start:], state)
    if (some.shape, more.shape) != ((0, start, vocab), (0, subject.length - start, vocab)):
        return False, str(tuple(more.shape)), "a batch without rows gives logits of another shape than [0, t, vocab]"
    return True, error, "an empty piece at the start and behind a state, and a batch without rows"


def _equal(one: object, other: object) -> bool:
    mine, theirs = tree_leaves(one), tree_leaves(other)
    return len(mine) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(mine, theirs, strict=True)
    )


@torch.no_grad()
def other_dtype(subject: Subject) -> Finding:
    """From a state in float64 or bfloat16 a model goes on as from its own, or refuses it by a ValueError of one sentence."""
    model, text, errors, refused = subject.model, subject.text, [], []
    start = subject.period + 3
    _, state = feed(model, text[:, :start])
    expected = subject.logits[:, start:]
    for kind, bound in ((torch.float64, SPLIT), (torch.bfloat16, ROUNDED)):
        try:
            logits, _ = model(text[:, start:], tree_map(lambda leaf, kind=kind: _cast(leaf, kind), state))
        except ValueError as error:
            refused.append(f"{kind} is refused: {' '.join(str(error).split())[:120]}")
            continue
        error = ((logits.float() - expected).norm() / expected.norm()).item()
        if logits.dtype != expected.dtype or not error <= bound:
            return False, error, f"from a state in {kind} the logits are {logits.dtype} and {error:.1e} off ({bound:g})"
        errors.append(error)
    return True, max(errors, default="refused"), "; ".join(["a state in float64 and one in bfloat16", *refused])


def _cast(leaf: object, kind: torch.dtype) -> object:
    return leaf.to(kind) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
