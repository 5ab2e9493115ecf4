"""CAMELoT against its equations, one token, row and head at a time in float64; and what it does without slots."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import baselines  # noqa: F401  registers every model
from models.language_model import Size, seeded
from models.layers import rotary

SIZE, WINDOW = Size(32, 16, 2, 2), 8
# where what token j found stands for token i: both turned alike is neither turned
STANDS = {"before": lambda j, i: j - WINDOW, "token": lambda j, i: j, "none": lambda j, i: i}


def model(**settings):
    settings = {"base_settings": {"window": WINDOW}, "slots": 3, "threshold": 0.3, **settings}
    return seeded("camelot", SIZE, 0, **settings).double().eval()


def text(time: int, rows: int = 2) -> Tensor:
    return torch.randint(SIZE.vocab, (rows, time), generator=torch.Generator().manual_seed(1))


def turned(x: Tensor, place: int) -> Tensor:
    return rotary(x[None, None, None], place)[0, 0, 0]


def attended(q, k, v, memory, view):
    """One head over a text: q, k, v [t, d], the table as a list of [key, value, count, age]."""
    stands = STANDS[memory.place]
    table, ys, found = [], [], []
    for i in range(len(q)):
        if i % WINDOW == 0:
            found = []
        if table:
            alike = [F.cosine_similarity(slot[0], k[i], 0).item() for slot in table]
            found.append((i, table[alike.index(max(alike))]))
        first = max(0, i - WINDOW + 1) if view == "window" else i // WINDOW * WINDOW
        scores = [(turned(q[i], i) @ turned(slot[0], stands(j, i)), slot[1]) for j, slot in found]
        scores += [(turned(q[i], i) @ turned(k[j], j), v[j]) for j in range(first, i + 1)]
        weights = torch.stack([score for score, _ in scores]).div(math.sqrt(q.shape[1])).softmax(0)
        ys.append(sum(weight * value for weight, (_, value) in zip(weights, scores, strict=True)))
        if i % WINDOW == WINDOW - 1:
            table = written(table, k[i - WINDOW + 1 : i + 1], v[i - WINDOW + 1 : i + 1], memory)
    return torch.stack(ys)


def written(table, k, v, memory):
    table = [list(slot) for slot in table]
    for key, value in zip(k, v, strict=True):
        alike = [F.cosine_similarity(slot[0], key, 0).item() for slot in table]
        for slot in table:
            slot[3] += 1
        if table and max(alike) > memory.chosen["threshold"]:
            slot = table[alike.index(max(alike))]
            c = slot[2]
            slot[:] = [(c * slot[0] + key) / (c + 1), (c * slot[1] + value) / (c + 1), c + 1, 0]
        elif len(table) < memory.slots:
            table.append([key, value, 1, 0])
        else:
            oldest = max(range(len(table)), key=lambda index: table[index][3])
            table[oldest] = [key, value, 1, 0]
    return table


def loop(memory, tokens, view):
    x = memory.embedding(tokens)
    for block in memory.blocks:
        q, k, v = block.mixer.qkv(block.mixer_norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (SIZE.heads, -1)) for part in (q, k, v))
        heads = [
            torch.stack(
                [attended(q[row, :, h], k[row, :, h], v[row, :, h], memory, view) for h in range(SIZE.heads)], 1
            )
            for row in range(len(tokens))
        ]
        x = x + block.mixer.out(torch.stack(heads).flatten(2))
        x = x + block.feed(block.feed_norm(x))
    return memory.base.norm(x) @ memory.embedding.weight.T


@torch.no_grad()
@pytest.mark.parametrize("view", ["window", "segment"])
@pytest.mark.parametrize(("threshold", "place"), [(0.3, "before"), (0.8, "before"), (0.3, "token"), (0.3, "none")])
def test_it_is_the_loop_over_tokens_whole_and_in_pieces(view, threshold, place):
    memory, tokens = model(view=view, threshold=threshold, place=place), text(2 * WINDOW + 5)
    expected = loop(memory, tokens, view)
    whole, state = memory(tokens)
    assert (whole - expected).abs().max() < 1e-12
    assert state[0][3][2].max() > 1 or threshold > 0.3  # slots have merged
    logits, state = [], None
    for piece in tokens.split([1, 7, 3, 10], 1):
        some, state = memory(piece, state)
        logits.append(some)
    assert (torch.cat(logits, 1) - expected).abs().max() < 1e-12


@torch.no_grad()
def test_without_slots_and_in_training_it_is_its_base():
    memory, tokens = model(slots=0), text(50)
    base = seeded("transformer-window", SIZE, 0, window=WINDOW).double()
    assert (memory(tokens)[0] - base(tokens)[0]).abs().max() < 1e-12
    full = model().train()
    assert torch.equal(full(tokens)[0], base(tokens)[0])
    assert (full.eval()(tokens)[0] - base(tokens)[0])[:, WINDOW:].abs().max() > 1e-3
    assert (full(tokens)[0] - base(tokens)[0])[:, :WINDOW].abs().max() < 1e-12  # nothing is written yet


@torch.no_grad()
def test_what_decides_is_not_rounded_to_half():
    memory, tokens = copy.deepcopy(model()).float(), text(40)
    with torch.autocast("cpu", torch.bfloat16):
        half, state = memory(tokens)
    assert (half.float() - memory(tokens)[0]).norm() / memory(tokens)[0].norm() < 0.03
    assert state[0][3][0].dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [{"slots": -1}, {"threshold": 2.0}, {"view": "all"}, {"place": "here"}, {"base": "gla", "base_settings": {}}],
)
def test_wrong_settings_are_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"camelot|Setting|view"):
        model(**wrong)
