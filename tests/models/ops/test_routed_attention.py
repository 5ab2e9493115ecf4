"""Attention inside clusters: the loops against their definitions, the fast forms against the loops, at any cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.routed_attention import balanced_attention, routed_attention
from models.ops.routed_attention.recurrence import LONELY

CLUSTERS, SCALE = 3, 0.7
CUTS = {"whole": (), "singles": tuple(range(1, 23)), "odd": (1, 8, 9, 9, 20), "long": (21,)}


def given(time: int, window: int, carried: bool, kind: str) -> tuple[dict, dict]:
    """Inputs that are differentiated, the rest among them the state's own leaves, in float64."""
    torch.manual_seed(time)
    wide = {name: torch.randn(2, time, 2, 4, dtype=torch.float64, requires_grad=True) for name in "qkv"}
    rest = {"window": window, "scale": SCALE}
    if kind == "routed":
        rest |= {"cluster": torch.randint(CLUSTERS, (2, time, 2)), "clusters": CLUSTERS}
    else:
        rest |= {"closeness": torch.randn(2, time, 2, CLUSTERS, dtype=torch.float64).mul(2**30).long()}
    if carried:
        before, more = given(17, window, False, kind)
        rest["state"] = tuple(x.detach() for x in operation(kind)(**before, **more, provider="recurrence")[1])
    return wide, rest


def operation(kind: str):
    return routed_attention if kind == "routed" else balanced_attention


def by_definition(q: Tensor, k: Tensor, v: Tensor, choice: Tensor, window: int, kind: str) -> Tensor:
    """Every output from the whole text before it: the last of its own cluster, or `torch.topk` of each prefix."""
    y = torch.zeros_like(v)
    for row in range(len(q)):
        for head in range(q.shape[2]):
            for t in range(q.shape[1]):
                reads = []
                for c in range(CLUSTERS):
                    if kind == "routed":
                        members = [s for s in range(t + 1) if choice[row, s, head] == c][-window:]
                    else:
                        members = choice[row, : t + 1, head, c].topk(min(window, t + 1))[1].tolist()
                    if t in members:
                        scores = SCALE * k[row, members, head] @ q[row, t, head]
                        reads.append(scores.softmax(0) @ v[row, members, head])
                if reads:
                    y[row, t, head] = sum(reads) / (1 if kind == "routed" else len(reads) + LONELY)
    return y


@pytest.mark.parametrize("window", [1, 4, 40])
@pytest.mark.parametrize("kind", ["routed", "balanced"])
@torch.no_grad()
def test_loop_is_its_definition(kind, window):
    wide, rest = given(23, window, False, kind)
    y, _ = operation(kind)(**wide, **rest, provider="recurrence")
    choice = rest["cluster" if kind == "routed" else "closeness"]
    assert (y - by_definition(*wide.values(), choice, window, kind)).abs().max() < 1e-12


@pytest.mark.sampled(5)
@pytest.mark.parametrize("carried", [False, True], ids=["from nothing", "carried"])
@pytest.mark.parametrize("time", [1, 4, 5, 37])
@pytest.mark.parametrize("window", [1, 4, 9])
@pytest.mark.parametrize("kind", ["routed", "balanced"])
def test_fast_form_is_the_loop_with_all_gradients(kind, window, time, carried):
    wide, rest = given(time, window, carried, kind)
    if carried:
        wide |= {"keys": rest["state"][0].requires_grad_(), "values": rest["state"][1].requires_grad_()}
    answers = []
    for provider in ("recurrence", "chunked"):
        y, state = operation(kind)(**{n: wide[n] for n in "qkv"}, **rest, provider=provider)
        loss = (y * y.detach().cos()).sum() + sum((x * x.detach().sin()).sum() for x in state[:2])
        found = torch.autograd.grad(loss, list(wide.values()), allow_unused=True)
        answers.append([y, *state, *(torch.zeros(()) if g is None else g for g in found)])
    for law, fast in zip(*answers, strict=True):
        torch.testing.assert_close(fast, law, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", ["routed", "balanced"])
@torch.no_grad()
def test_a_text_may_be_cut_anywhere(kind, cuts):
    wide, rest = given(23, 5, True, kind)
    name = "cluster" if kind == "routed" else "closeness"
    whole, last = operation(kind)(**wide, **rest, provider="chunked")
    state, choice, ys = rest.pop("state"), rest.pop(name), []
    for piece in zip(*(x.tensor_split(cuts, 1) for x in (*wide.values(), choice)), strict=True):
        kept = tuple(x.clone() for x in state)
        named = {name: piece[-1]}
        y, after = operation(kind)(*piece[:-1], **named, **rest, state=state, provider="chunked")
        assert all(torch.equal(a, b) for a, b in zip(kept, state, strict=True))
        state = after
        ys.append(y)
    assert (torch.cat(ys, 1) - whole).abs().max() < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))


@torch.no_grad()
def test_of_equally_close_tokens_the_earlier_stays():
    wide, rest = given(9, 3, False, "balanced")
    rest["closeness"] = torch.zeros(2, 9, 2, CLUSTERS)
    for provider in ("recurrence", "chunked"):
        y, (keys, _, _) = balanced_attention(**wide, **rest, provider=provider)
        assert not y[:, 3:].any() and y[:, :3].any()
        assert torch.equal(keys[:, :, 0], wide["k"][:, :3].transpose(1, 2))
