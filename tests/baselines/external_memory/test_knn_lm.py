"""kNN-LM against its equation in float64, its search against all distances, and what stands in its store and its state."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

import baselines  # noqa: F401  registers every model
from baselines.external_memory.nearest import nearest
from models.language_model import Size, seeded

SIZE = Size(32, 16, 2, 2)


def model(**settings):
    return seeded("knn-lm", SIZE, 0, **settings).double().eval()


def text(rows: int, time: int, seed: int = 1) -> Tensor:
    return torch.randint(SIZE.vocab, (rows, time), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def keys_of(base, tokens: Tensor) -> Tensor:
    """The input of the last feed-forward, after its norm."""
    x = base.embedding(tokens)
    for block in base.blocks[:-1]:
        x = block(x, None)[0]
    last = base.blocks[-1]
    return last.feed_norm(x + last.mixer(last.mixer_norm(x), None)[0])


def mixture(log_lm: Tensor, q: Tensor, keys: Tensor, values: list[int], count: int, share: float) -> Tensor:
    """log p [vocab] of one query, by the paper's sums."""
    away = (keys - q).square().sum(-1)
    near = sorted(range(len(keys)), key=lambda i: away[i].item())[:count]
    p, total = torch.zeros_like(log_lm), sum(math.exp(-away[i]) for i in near)
    for i in near:
        p[values[i]] += math.exp(-away[i]) / total
    return (share * p + (1 - share) * log_lm.exp()).log()


@torch.no_grad()
def test_it_is_the_paper_s_mixture_over_the_nearest_of_all_stored_contexts():
    memory = model(neighbours=5, weight=0.3, entries=60)
    seen = text(4, 24)
    targets = seen[:, 1:].clone()
    targets[:, :3] = -100
    memory.remember([(seen[:2, :-1], targets[:2]), (seen[2:, :-1], targets[2:])])
    assert memory.keys.shape == (60, SIZE.width) and memory.contents_bytes() == 60 * (8 * SIZE.width + 8)
    stored = keys_of(memory.base, seen[:, :-1])[targets >= 0][:60]
    values = targets[targets >= 0][:60].tolist()
    tokens = text(2, 9, seed=2)
    logits, expected = memory(tokens)[0], memory.base(tokens)[0].log_softmax(-1)
    q = keys_of(memory.base, tokens)
    for row in range(2):
        for place in range(9):
            told = mixture(expected[row, place], q[row, place], stored, values, 5, 0.3)
            assert (logits[row, place] - told).abs().max() < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("cache", [None, 6])
def test_the_continuous_cache_looks_among_the_row_s_own_past(cache):
    memory, tokens = model(store="text", weight=0.4, cache=cache), text(2, 20)
    logits, expected = memory(tokens)[0], memory.base(tokens)[0].log_softmax(-1)
    q = keys_of(memory.base, tokens)
    assert (logits[:, 0] - expected[:, 0]).abs().max() < 1e-12  # there is no past
    for row in range(2):
        for place in range(1, 20):
            first = max(0, place - (cache or place))
            values = tokens[row, first + 1 : place + 1].tolist()
            told = mixture(expected[row, place], q[row, place], q[row, first:place], values, 20, 0.4)
            assert (logits[row, place] - told).abs().max() < 1e-12
    pieces, state = [], None
    for piece in tokens.split([1, 8, 1, 10], 1):
        some, state = memory(piece, state)
        pieces.append(some)
    assert (torch.cat(pieces, 1) - logits).abs().max() < 1e-12


@torch.no_grad()
def test_without_contents_and_in_training_it_is_its_base():
    memory, tokens = model(), text(2, 12)
    base = seeded("transformer", SIZE, 0).double()
    assert torch.equal(memory(tokens)[0], base(tokens)[0].log_softmax(-1))
    memory.remember([(tokens[:, :-1], tokens[:, 1:])])
    assert not torch.equal(memory(tokens)[0], base(tokens)[0].log_softmax(-1))
    assert torch.equal(memory.train()(tokens)[0], base(tokens)[0])


def test_its_weights_are_the_base_s_and_what_it_holds_is_in_no_file_of_weights():
    memory = seeded("knn-lm", SIZE, 3, base="mamba2")
    base = seeded("mamba2", SIZE, 3)
    assert all(torch.equal(a, b) for a, b in zip(memory.parameters(), base.parameters(), strict=True))
    memory.remember([(text(1, 8), text(1, 8))])
    assert set(memory.state_dict()) == {f"base.{name}" for name in base.state_dict()}


def test_open_settings_are_candidates_until_they_are_chosen():
    memory = model()
    assert list(memory.candidates()) == [{"weight": w} for w in (0.1, 0.25, 0.5, 0.75)]
    memory.choose({"weight": 0.75})
    assert memory.chosen == {"weight": 0.75}
    assert list(model(weight=0.2).candidates()) == [{}]


@pytest.mark.parametrize("provider", ["torch", "faiss"])
@pytest.mark.parametrize("count", [1, 7, 400])
def test_the_search_is_exact_and_settles_ties_by_place(provider, count):
    if provider == "faiss" and find_spec("faiss") is None:
        pytest.skip("faiss is not installed")
    draw = torch.Generator().manual_seed(0)
    keys = torch.randn(333, 8, generator=draw)
    keys[200:210] = keys[:10]  # ties
    queries = torch.cat([torch.randn(150, 8, generator=draw), keys[:5]])
    places, away = nearest(queries, keys, count, provider)
    every = (queries.double()[:, None] - keys.double()).square().sum(-1)
    order = every.argsort(dim=-1, stable=True)[:, :count]
    assert (away.double() - every.gather(1, order)).abs().max() < 1e-4
    assert torch.equal(every.gather(1, places).round(decimals=4), every.gather(1, order).round(decimals=4))
    if count > 1:
        assert places[-5:, :2].tolist() == [[i, 200 + i] for i in range(5)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": 1.0}, {"entries": 0}, {"neighbours": 0}, {"temperature": 0.0}, {"cache": 5}, {"store": "both"},
        {"base": "rmt"}, {"base": "knn-lm"}, {"base_settings": {"no": 1}},
    ],
)  # fmt: skip
def test_wrong_settings_are_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"knn-lm|base|Base"):
        model(**wrong)
