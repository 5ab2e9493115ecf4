"""Texts, first weights and comparisons for memories after Titans, in float64; gates have exact zeros and ones among them."""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.associative_memory.retention_rule import RetentionRule, on_simplex

BATCH, HEADS, WIDTH, HIDDEN = 2, 2, 4, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def share(time: int, seed: int) -> Tensor:
    return drawn(BATCH, time, HEADS, seed=seed).sigmoid()


def ended(gate: Tensor, seed: int) -> Tensor:
    """A gate with exact zeros and ones among its values."""
    ends = drawn(*gate.shape, seed=seed)
    return torch.where(ends > 1, 1.0, torch.where(ends < -1, 0.0, gate))


def texts(time: int, keys: int = WIDTH, width: int = WIDTH) -> dict[str, Tensor]:
    q, k = (unit(drawn(BATCH, time, HEADS, keys, seed=seed)) for seed in (1, 2))
    return {"q": q, "k": k, "v": unit(drawn(BATCH, time, HEADS, width, seed=3)), "rate": 0.2 * share(time, 4)}


def retained(time: int, width: int = WIDTH) -> dict[str, Tensor]:
    """The inputs of a retention memory, keys and values of one width."""
    return {**texts(time, width, width), "keep": ended(1 - share(time, 5) ** 4, 6), "threshold": 1.5 * share(time, 7)}


def windowed(time: int, momentum: bool, keys: int = 6, width: int = WIDTH) -> dict[str, Tensor]:
    """The inputs of a window memory."""
    given = {**texts(time, keys, width), "keep": ended(1 - share(time, 5) ** 4, 6), "weight": ended(share(time, 8), 9)}
    return {**given, "momentum": ended(0.97 * share(time, 10), 11)} if momentum else given


def memory(
    keys: int = WIDTH, depth: int = 2, positive: bool = False, hidden: int = HIDDEN, width: int = WIDTH
) -> tuple[Tensor, ...]:
    """First weights of a memory, probabilities if `positive`."""
    sizes = [keys, *[hidden] * (depth - 1), width]
    pairs = zip(sizes, sizes[1:], strict=False)
    weights = tuple(drawn(HEADS, a, b, seed=20 + a) * a**-0.5 for a, b in pairs)
    return tuple(on_simplex(w, RetentionRule()) for w in weights) if positive else weights


def leaves(state) -> list[Tensor]:
    return [part for group in state for part in group]


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-12)).item()


def answers(form, given: dict[str, Tensor], initial: tuple[Tensor, ...], cuts: list[int], rule) -> dict[str, Tensor]:
    """Outputs, last state and the gradients of everything, of a text read in pieces."""
    own = {name: x.clone().requires_grad_() for name, x in given.items()}
    weights = tuple(w.clone().requires_grad_() for w in initial)
    ys, state, start = [], None, 0
    for size in cuts:
        piece = {name: x[:, start : start + size] for name, x in own.items()}
        y, state = form(**piece, initial=weights, rule=rule, state=state)
        ys.append(y)
        start += size
    values = [torch.cat(ys, 1), *leaves(state)]
    sum((x * drawn(*x.shape, seed=40 + i)).sum() for i, x in enumerate(values)).backward()
    found = {**dict(enumerate(values)), **{f"d{name}": x.grad for name, x in own.items()}}
    return {**found, **{f"dM{index}": w.grad for index, w in enumerate(weights)}}


def agree(law, fast, given, initial, rule, cuts: list[int], within: float = 1e-9) -> None:
    """Hold a fast form of a text read in pieces to the law of the whole: outputs, last state and every gradient."""
    right, got = (answers(f, given, initial, c, rule) for f, c in ((law, [sum(cuts)]), (fast, cuts)))
    for name, expected in right.items():
        if expected is None:  # what this rule does not read
            assert got[name] is None or not got[name].any(), name
            continue
        assert got[name].shape == expected.shape and got[name].isfinite().all(), name
        assert not expected.numel() or relative(got[name], expected) < within, name


RETENTION = {
    "titans": {"loss": "l2"},
    "plain": {"loss": "l2", "residual": False},
    "yaad": {"loss": "huber"},
    "yaad per channel": {"loss": "huber", "per_channel": True, "residual": False, "activation": "silu"},
    "moneta": {"loss": "lp", "retention": "lq"},
    "moneta plain": {"loss": "lp", "retention": "lq", "residual": False, "norm_floor": 0.3},
    "memora": {"retention": "kl"},
    "memora plain": {"retention": "kl", "residual": False, "mass": 1.0, "weight_floor": 0.05},
}

WINDOW = [
    (orthogonal, momentum) for orthogonal in (None, "chunk", "token") for momentum in (False, True)
    if momentum or orthogonal is None
]  # fmt: skip
