"""The conformance kit's questions about who may see what: later tokens, other rows, earlier tokens; and determinism."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.conformance.subject import LEAST, Finding, Subject, difference, feed, first_apart

SAME = 1e-6  # relative: nothing but the last bit may differ
ALONE = 1e-5  # relative: a matrix product rounds differently at another batch size
HEARD = 1e-7  # relative: other logits, where a model stops gradients
FAINT = 1e-9  # a gradient below this share of the text's largest is no reading


class LooksAhead(ValueError):
    """A model whose answer to a token hangs on what comes after it."""


@torch.no_grad()
def admit(model: nn.Module) -> None:
    """Let `model`, as its weights are now, be examined: raises LooksAhead where its logits hang on later tokens.

    All tokens from a place on are changed, around the ends of two periods; it is examined in evaluation mode, as exams are.
    """
    was_training, span = model.training, max(model.period, LEAST)
    model.eval()
    try:
        generator = torch.Generator().manual_seed(0)
        words = model.embedding.num_embeddings
        text = torch.randint(words, (1, 2 * span + 21), generator=generator).to(model.embedding.weight.device)
        logits = feed(model, text)[0]
        for place in (1, 2, span - 1, span, span + 1, 2 * span):
            changed = text.clone()
            changed[:, place:] = (changed[:, place:] + 1) % words
            before = feed(model, changed)[0][:, :place]
            if difference(before, logits[:, :place]) > SAME:
                token = first_apart(before, logits, SAME)
                raise LooksAhead(
                    f"The logits at token {token} hang on tokens from {place} on: the model looks ahead, so that its numbers "
                    "would be no predictions; bench.py check says where."
                )
    finally:
        model.train(was_training)


def _places(subject: Subject) -> list[int]:
    """Where a leak would start: around every chunk, segment and window, and at both ends."""
    step = subject.period if subject.period > 1 else 64
    around = [n * step + shift for n in (1, 2) for shift in (-2, -1, 0, 1)]
    return sorted({0, *(place for place in around if 0 <= place < subject.length - 1), subject.length - 2})


def perturbation(subject: Subject) -> Finding:
    """Another token at t + 1 leaves the logits up to t as they were."""
    worst, where, seen = 0.0, 0, ""
    for place in _places(subject):
        changed = subject.text.clone()
        changed[:, place + 1] = (changed[:, place + 1] + 1) % subject.size.vocab
        logits = feed(subject.model, changed)[0]
        error = difference(logits[:, : place + 1], subject.logits[:, : place + 1])
        if not error <= SAME and not seen:
            token = first_apart(logits[:, : place + 1], subject.logits, SAME)
            seen = f"the logits at token {token} see token {place + 1}; "
        if not error <= worst:
            worst, where = error, place
    detail = f"{len(_places(subject))} places, worst after token {where}, at most {SAME:g}"
    return worst <= SAME, worst, seen + detail


def gradient(subject: Subject) -> Finding:
    """The logits at t have no gradient at a later token, and some at an earlier one.

    A model that stops gradients at its segments' borders says `detaches`; earlier tokens are then changed instead.
    """
    detaches = getattr(subject.mixer, "detaches", False)
    worst, where, deaf = 0.0, 0, []
    for place in _places(subject)[1:]:
        reached = _reached(subject, place)
        largest = reached.max().item()
        leak = reached[:, place + 1 :].max().item() / largest
        if not leak <= worst:
            worst, where = leak, place
        if not (_hears(subject, place) if detaches else reached[:, :place].max().item() > FAINT * largest):
            deaf.append(place)
    if deaf:
        how = "do not move with" if detaches else "have no gradient at"
        return False, "no memory", f"the logits at token {deaf[0]} {how} any earlier token"
    if not worst <= SAME:
        return (
            False,
            worst,
            f"the logits at token {where} have a gradient at a later token, at most {SAME:g} of the largest",
        )
    if detaches:
        told = "" if detaches is True else f" ({detaches})"
        return True, worst, f"no gradient at a later token; gradients are stopped{told}, so earlier tokens were changed"
    return worst <= SAME, worst, f"share of the largest gradient, worst after token {where}, at most {SAME:g}"


def _reached(subject: Subject, place: int) -> Tensor:
    """Gradient norms [b, t] at every token's embedding, of a random sum of the logits at `place`.

    Raises ValueError if the model does not call its `embedding`.
    """
    seen: list[Tensor] = []
    hook = subject.model.embedding.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        logits = subject.model(subject.text)[0]
    finally:
        hook.remove()
    if sum(x.shape[1] for x in seen) != subject.length:
        raise ValueError("A whole language model must embed each token once, by calling its `embedding`.")
    weights = torch.randn(logits.shape[2], generator=torch.Generator().manual_seed(place))
    value = (logits[:, place].float() * weights).sum()
    grads = torch.autograd.grad(value, seen, allow_unused=True)
    grads = [torch.zeros_like(x) if g is None else g for x, g in zip(seen, grads, strict=True)]
    return torch.cat(grads, 1).norm(dim=-1)


def _hears(subject: Subject, place: int) -> bool:
    """Whether the logits at `place` are others where all earlier tokens are, those of its own segment left as they are.

    Of a place in the first segment all earlier tokens are changed.
    """
    changed = subject.text.clone()
    border = place // subject.period * subject.period or place
    changed[:, :border] = (changed[:, :border] + 1) % subject.size.vocab
    logits = feed(subject.model, changed[:, : place + 1])[0]
    return difference(logits[:, place:], subject.logits[:, place : place + 1]) > HEARD


def rows(subject: Subject) -> Finding:
    """A row's logits do not move with the other rows, whole or in pieces, and are those of the row alone."""
    model, text = subject.model, subject.text
    changed = torch.cat([text[:1], (text[1:] + 7).flip(1) % subject.size.vocab])
    cuts = [5, subject.period + 2]
    whole = feed(model, changed)[0][:1]
    beside = max(
        difference(whole, subject.logits[:1]),
        difference(feed(model, changed, cuts)[0][:1], feed(model, text, cuts)[0][:1]),
    )
    seen = (
        f"row 0 moves with row 1 from token {first_apart(whole, subject.logits[:1], SAME)} on; "
        if beside > SAME
        else ""
    )
    alone = difference(feed(model, text[:1])[0], subject.logits[:1])
    passed = beside <= SAME and alone <= ALONE
    return (
        passed,
        max(beside, alone),
        f"{seen}beside another row {beside:.1e} (at most {SAME:g}), alone {alone:.1e} (at most {ALONE:g})",
    )


def determinism(subject: Subject) -> Finding:
    """Equal seeds give equal parameters, and equal texts equal logits, bit for bit."""
    one, other = subject.build(), subject.build()
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        if not torch.equal(a, b):
            return False, (a - b).abs().max().item(), f"two models of one seed differ in {name}"
    error = difference(feed(one, subject.text)[0], feed(other, subject.text)[0])
    return error == 0.0, error, "two models of one seed, bitwise"
