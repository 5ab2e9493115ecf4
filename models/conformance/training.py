"""The conformance kit's questions about learning: size, initialisation, gradients, bfloat16, overfitting one batch."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from models.conformance.subject import Finding, Subject, difference, loss, train
from models.matching.counts import parameter_count
from models.matching.solver import reference_parameters, solve
from models.shell.model import layer_arguments
from schema.settings import construct
from schema.terms import tolerance

START = 0.05  # relative: the loss at initialisation against log(vocab)
WIDE, START_WIDE = 512, 1.0  # a width at which a tied output would show an embedding that is repeated; in nats
SPREAD = 1.5  # a standard deviation inside the model over the one alone, either way
HALF = 0.03  # relative: logits under bfloat16 autocast against float32
STEPS = 150  # at most
SYMBOLS = 32  # in the batch that is overfitted
LEARNED = 0.5  # the loss after those steps, as a share of the best that a model without memory could reach


def matched(subject: Subject) -> Finding:
    """Parameters match the reference Transformer's."""
    count, target = parameter_count(subject.model), reference_parameters(subject.size)
    share = count / target - 1
    detail = f"{count:,} parameters, the reference Transformer {target:,}, within {tolerance(target):.0%}"
    return abs(share) <= tolerance(target), f"{share:+.2%}", detail


def start(subject: Subject) -> Finding:
    """A new model knows nothing: its loss on random tokens is near log(vocab), `thorough` of a wide model too."""
    expected = math.log(subject.size.vocab)
    with torch.no_grad():
        value = loss(subject.build(), subject.tokens(4, subject.length)).item()
    detail = f"log({subject.size.vocab}) = {expected:.3f}, within {START:.0%}"
    near = abs(value / expected - 1) <= START
    if near and subject.thorough:
        wide = replace(subject, size=replace(subject.size, width=WIDE, heads=WIDE // 64))
        with torch.no_grad():
            value = loss(wide.build(), wide.tokens(1, 64)).item()
        return (
            abs(value - expected) <= START_WIDE,
            round(value, 4),
            f"{detail}; this at width {WIDE}, within {START_WIDE}",
        )
    return near, round(value, 4), detail


def initial_statistics(subject: Subject) -> Finding:
    """The shell leaves a mixer as the mixer initialised itself.

    The first block's mixer is bitwise the one built alone from the same seed, told the same layer; the others agree in mean
    and spread.
    """
    if subject.entry.is_language_model:
        return True, "no shell", "a whole language model initialises itself"
    model = subject.build()
    for index, block in enumerate(model.blocks):
        alone = _alone(subject, index, len(model.blocks))
        for name, inside in block.mixer.named_parameters():
            by_itself = alone[name]
            if index == 0 and not torch.equal(inside, by_itself):
                figure = (inside - by_itself).abs().max().item()
                return False, figure, f"{name} of the first block is not what the mixer alone draws from the same seed"
            if not _alike(inside, by_itself):
                figure = f"{inside.std().item():.3g} against {by_itself.std().item():.3g}"
                return False, figure, f"the spread of {name} in block {index} is not that of the mixer alone"
    return True, 0.0, f"first of {len(model.blocks)} mixers bitwise, the others in mean and spread"


def _alone(subject: Subject, index: int, depth: int) -> dict[str, Tensor]:
    """Parameters of one layer's mixer built outside the shell, from the seed that `Subject.build` uses."""
    inner = solve(subject.entry, subject.size, subject.settings).inner
    own = subject.settings if inner is None else {**subject.settings, "inner": inner}
    own = {**layer_arguments(subject.entry.cls, index, depth), **own}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixer = construct(subject.entry.cls, subject.size.width, subject.size.heads, **own)
    return dict(mixer.named_parameters())


def _alike(one: Tensor, other: Tensor) -> bool:
    """Equal where constant; else, where there are enough numbers to tell, of like mean and spread."""
    if one.numel() < 2 or other.std() == 0:
        return torch.equal(one, other) or other.numel() == 1
    if one.numel() < 64:
        return True
    spread = (one.std() / other.std()).item()
    return 1 / SPREAD <= spread <= SPREAD and abs(one.mean() - other.mean()).item() <= other.std().item()


def gradients(subject: Subject) -> Finding:
    """After one optimiser step every parameter has a finite gradient that is not zero, but for declared exceptions."""
    excused = getattr(subject.mixer, "no_gradient", {})
    parameters = dict(subject.model.named_parameters())
    grads = torch.autograd.grad(loss(subject.model, subject.text), list(parameters.values()), allow_unused=True)
    names = {name: _fault(g) for name, g in zip(parameters, grads, strict=True)}
    faults = {name: fault for name, fault in names.items() if fault and not _excuse(name, excused)}
    stale = [suffix for suffix in excused if not any(name.endswith(suffix) for name in names)]
    if faults:
        return False, f"{len(faults)} of {len(names)}", "; ".join(f"{name}: {fault}" for name, fault in faults.items())
    if stale:
        return False, f"{len(stale)} unused", f"no_gradient names no parameter: {', '.join(stale)}"
    reasons = "; ".join(f"except {name}: {_excuse(name, excused)}" for name, fault in names.items() if fault)
    least = min(g.abs().max().item() for g in grads if g is not None and g.abs().max() > 0)
    return True, least, f"{len(names)} tensors, least of their largest gradients" + (f"; {reasons}" if reasons else "")


def _fault(gradient: Tensor | None) -> str:
    if gradient is None:
        return "no gradient"
    if not gradient.isfinite().all():
        return "gradient not finite"
    return "" if gradient.any() else "gradient zero"


def _excuse(name: str, excused: dict[str, str]) -> str:
    return next((reason for suffix, reason in excused.items() if name.endswith(suffix)), "")


def half(subject: Subject) -> Finding:
    """Under bfloat16 autocast logits and gradients are finite, and the logits near those in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = subject.model(subject.text)
        value = loss(subject.model, subject.text)
        grads = torch.autograd.grad(value, list(subject.model.parameters()), allow_unused=True)
    if not all(g is None or g.isfinite().all() for g in grads):
        return False, "not finite", "a gradient under bfloat16 autocast is not finite"
    error = ((logits.float() - subject.logits).norm() / subject.logits.norm()).item()
    worst = difference(logits.detach().float(), subject.logits)
    return error <= HALF, error, f"logits against float32, at most {HALF:g}; the worst place {worst:.1e}"


def overfit(subject: Subject) -> Finding:
    """At most 150 steps on one batch bring its loss well below what any model without memory could reach.

    The batch is random over few symbols: what follows a symbol varies, and only the text before tells which it is.
    """
    model = subject.build()
    batch = subject.tokens(4, 33, seed=2) % SYMBOLS
    limit = LEARNED * _without_memory(batch)
    losses = train(model, batch, STEPS, lr=1e-2, until=limit)
    last, steps = losses[-1], len(losses) - 1
    detail = f"loss from {losses[0]:.2f} in {steps} steps (at most {STEPS}); at most {limit:.2f}, half the best without memory"
    return last <= limit, round(last, 4), detail


def _without_memory(batch: Tensor) -> float:
    """Least mean cross entropy, in nats, on this batch of a model that sees only the token before."""
    pairs = torch.zeros(SYMBOLS, SYMBOLS)
    one = torch.ones(batch[:, 1:].numel())
    pairs.index_put_((batch[:, :-1].flatten(), batch[:, 1:].flatten()), one, accumulate=True)
    share = pairs / pairs.sum(1, keepdim=True).clamp_min(1)
    return -(torch.special.xlogy(pairs, share).sum() / pairs.sum()).item()
