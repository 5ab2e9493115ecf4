"""Memory as a context: its segments are the paper's, each recalls what earlier ones wrote, and the literal form leaks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import baselines  # noqa: F401  fills the registry with the reference
from models.conformance.kit import check
from models.layers import split_heads
from tests.support.titans_layers import HEADS, mixer, relative, text, turned


@torch.no_grad()
@pytest.mark.parametrize("inner_residual", [True, False])
def test_mac_is_the_paper_in_its_order(inner_residual):
    """Two segments again, step by step, with attention over [P | h | S] as drawn: P, then all rows of h, then the segment."""
    layer = mixer("mac linear", segment=8, chunk=8, inner_residual=inner_residual).double()
    x = text(16).double()
    expected, _ = layer(x)
    asked, _ = layer.memory.queries(x, None)
    qkv, _ = layer.conv(torch.cat([layer.query(x), layer.key_value(x)], -1))
    count, state, outputs = len(layer.persistent), None, []
    for start in (0, 8):
        piece = slice(start, start + 8)
        weights = state[2][0][0] if state else layer.memory.initial[0].expand(2, -1, -1, -1)
        h = torch.einsum("bthi,bhio->btho", asked[:, piece], weights)
        h = layer.recall_out(layer.recall_norm(h))
        context = layer.key_value(torch.cat([layer.persistent.double().expand(2, -1, -1), h], 1))
        keys, values = (
            split_heads(torch.cat([c, own[:, piece]], 1), HEADS)
            for c, own in zip(context.chunk(2, -1), qkv.chunk(3, -1)[1:], strict=True)
        )
        local = torch.arange(count, count + 8)
        places = torch.cat([torch.arange(count), local, local])
        keys, q = turned(keys, places), turned(split_heads(qkv.chunk(3, -1)[0][:, piece], HEADS), local)
        seen = (local[:, None] >= places) | (torch.arange(len(places)) < count)
        scores = torch.einsum("bihd,bjhd->bhij", q, keys) / q.shape[-1] ** 0.5
        y = torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), values)
        y = layer.attention_out(y.flatten(2)) + (x[:, piece] if inner_residual else 0)
        read, state = layer.memory(y, state)
        m = layer.recall_out(layer.recall_norm(read))
        gated = layer.gating.kept(y) * torch.sigmoid(layer.gating.gate(m))
        outputs.append(layer.out(gated))
    assert relative(torch.cat(outputs, 1), expected) < 1e-12


@torch.no_grad()
def test_pooled_row_is_one_mean_query_seen_from_its_last_token_on():
    layer = mixer("mac pooled").double()
    asked = layer.memory.queries(text(12).double(), None)[0]
    pooled, waiting = layer._pool(asked[:, 2:], asked[:, :2])  # any split: two queries were waiting
    assert pooled.shape[1] == 4 and waiting.shape[1] == 0
    means = asked.unflatten(1, (4, 3)).mean(2)
    assert relative(pooled, F.normalize(means, dim=-1)) < 1e-4
    seen = layer._visible(0, 12, 4, 12)[:, 3:7]
    assert [row.index(True) for row in seen.T.tolist()] == [2, 5, 8, 11]
    assert seen[-1].all()


def test_one_memory_token_per_token_is_the_default():
    x = text(40)
    torch.testing.assert_close(mixer("mac")(x)[0], mixer("mac", memory_tokens=16)(x)[0], rtol=0, atol=0)
    assert relative(mixer("mac", memory_tokens=8)(x)[0], mixer("mac")(x)[0]) > 1e-3


def test_literal_mac_is_reported_as_leaking():
    asked = ["causality by perturbation", "causality by gradient"]
    sound = check("titans-mac", only=asked)
    leaking = check("titans-mac", only=asked, literal=True)
    assert all(each.passed for each in sound), sound
    assert not any(each.passed for each in leaking), leaking


@torch.no_grad()
def test_literal_mac_leaks_in_both_ways_and_within_the_segment_only():
    layer, x = mixer("mac linear", literal=True, segment=8), text(24)
    changed = x.clone()
    changed[:, 13] += 1  # in the second segment, 8 to 15
    moved = (layer(changed)[0] - layer(x)[0]).abs().amax((0, 2))
    assert moved[:8].max() < 1e-6 and moved[8:13].min() > 1e-6
    layer._visible = mixer("mac linear", segment=8)._visible  # the rows of h hidden again: the gate alone still leaks
    moved = (layer(changed)[0] - layer(x)[0]).abs().amax((0, 2))
    assert moved[8:13].min() > 1e-6


@torch.no_grad()
def test_mac_recalls_what_an_earlier_segment_wrote():
    layer = mixer("mac")
    x = text(48)
    changed = x.clone()
    changed[:, :8] += 1
    moved = (layer(changed)[0] - layer(x)[0])[:, 16 + 4 :]  # beyond the reach of attention and convolutions
    assert moved.abs().max() > 1e-5
