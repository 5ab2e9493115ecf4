"""The window behind a prefix, of memory as a gate and as a layer, and the gate."""

from __future__ import annotations

import torch

from models.layers import split_heads
from models.titans.window import PrefixedWindow
from tests.support.titans_layers import HEADS, WIDTH, mixer, relative, text, turned


@torch.no_grad()
def test_window_sees_its_tokens_and_the_prefix_wherever_it_stands():
    torch.manual_seed(0)
    window, prefix = 6, 3
    branch = PrefixedWindow(WIDTH, HEADS, WIDTH, window, prefix)
    x = text(60, 1)
    y, _ = branch(x)
    place = 40  # of the text, which begins behind the prefix
    for back, seen in ((window - 1, True), (window + 2, True), (window + 3, False)):  # three more by the convolution
        changed = x.clone()
        changed[:, prefix + place - back] += 1
        assert (relative(branch(changed)[0][:, place], y[:, place]) > 1e-5) == seen, back
    changed = x.clone()
    changed[:, 0] += 1
    assert relative(branch(changed)[0][:, place], y[:, place]) > 1e-5
    same = torch.cat([x[:, :prefix], x[:, -1:].expand(-1, 300, -1)], 1)
    y, _ = branch(same)
    assert relative(y[:, 20], y[:, 299]) < 1e-5


@torch.no_grad()
def test_window_is_softmax_over_prefix_and_window():
    torch.manual_seed(0)
    branch = PrefixedWindow(WIDTH, HEADS, WIDTH, 6, 3).double()
    x = text(3 + 20).double()
    q, k, v = (split_heads(part, HEADS) for part in branch.conv(branch.qkv(x))[0].chunk(3, -1))
    places = torch.arange(20)
    distance = places[:, None] - places
    with_place = torch.einsum("bihd,bjhd->bhij", turned(q[:, 3:], places), turned(k[:, 3:], places))
    with_place = with_place.masked_fill((distance < 0) | (distance >= 6), float("-inf"))
    without = torch.einsum("bihd,bjhd->bhij", q[:, 3:], k[:, :3])
    scores = torch.cat([without, with_place], -1) / q.shape[-1] ** 0.5
    y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    assert relative(branch(x)[0], y.flatten(2)) < 1e-12


@torch.no_grad()
def test_mag_is_attention_gated_by_memory():
    layer = mixer("mag").double()
    x = text(30).double()
    whole = torch.cat([layer.persistent.expand(2, -1, -1), x], 1)
    m, y = layer.memory(whole)[0].flatten(2)[:, 3:], layer.attention(whole)[0]
    unit = [part / part.square().mean(-1, keepdim=True).add(1e-6).sqrt() for part in (y, m)]
    assert relative(layer.out(unit[0] * torch.sigmoid(unit[1])), layer(x)[0]) < 1e-12
