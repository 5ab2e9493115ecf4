"""One token after others: the compiled steps of Titans' memory and window against the forms for whole texts."""

from __future__ import annotations

import pytest
import torch

from models.layers import rotary
from models.layers.derived import Derived
from models.ops.native_build import compiler
from models.ops.neural_memory.native_step import step
from models.ops.neural_memory.recurrence import Rule, recurrence
from models.ops.softmax_attention.native import attend
from models.titans.window import PrefixedWindow

needs_compiler = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
KIND = torch.float64


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=KIND)


@pytest.mark.sampled(3)
@needs_compiler
@pytest.mark.parametrize("rule", [Rule(1), Rule(5), Rule(4, "silu", decayed=True), Rule(3, exclusive=True)])
@pytest.mark.parametrize(("depth", "gates"), [(1, 1), (2, 1), (2, 2), (3, 1)])
@torch.no_grad()
def test_a_memory_in_steps_is_its_law_and_a_state_that_somebody_kept_stays(rule, depth, gates):
    torch.manual_seed(depth)
    sizes, heads, time = [4, *[8] * depth], 2, 12
    initial = tuple(drawn(heads, *pair) * 0.3 for pair in zip(sizes, sizes[1:], strict=False))
    q, k, v = drawn(2, time, heads, 4), drawn(2, time, heads, 4), drawn(2, time, heads, 8)
    shape = (2, time, heads) if gates == 1 else (2, time, heads, gates)
    momentum, rate, keep = (drawn(*shape).sigmoid() * scale for scale in (0.9, 0.2, 1.0))
    named = {"momentum": momentum, "rate": rate, "keep": keep}
    right, end = recurrence(q, k, v, **named, initial=initial, rule=rule)
    first = {name: gate[:, :1] for name, gate in named.items()}
    _, state = recurrence(q[:, :1], k[:, :1], v[:, :1], **first, initial=initial, rule=rule)
    for t in range(1, time):
        kept = [x.clone() for part in state for x in part]
        new = [x[:, t : t + 1] for x in (k, v, momentum, rate, keep)]
        y, after = step(q[:, t : t + 1], new, gates, rule, state)
        torch.testing.assert_close(y, right[:, t : t + 1], rtol=1e-12, atol=1e-12)
        assert all(torch.equal(x, old) for x, old in zip((x for part in state for x in part), kept, strict=True))
        state = after
    for part, other in zip(state, end, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_step_leaves_longer_texts_first_tokens_and_large_memories_to_others():
    rule, x, gate = Rule(4), drawn(1, 2, 1, 4), drawn(1, 2, 1)
    large = (drawn(1, 1, 200, 200),)
    state = (large, large, tuple(part[:, :1] for part in (x, x, gate, gate, gate)))
    new = [part[:, :1] for part in (x, x, gate, gate, gate)]
    assert step(x, new, 1, rule, state) is None
    assert step(x[:, :1], new, 1, rule, None) is None
    assert step(x[:, :1], new, 1, rule, state) is None


@needs_compiler
@pytest.mark.parametrize("head", [8, 6])
@torch.no_grad()
def test_attention_of_one_token_over_several_parts_is_a_softmax_over_all(head):
    torch.manual_seed(0)
    q, turned = drawn(2, 1, 3, head), drawn(2, 1, 3, head) * 9
    parts = [(q, drawn(1, 4, 3, head), drawn(1, 4, 3, head)), (turned, *(drawn(2, 21, 3, head) for _ in range(2)))]
    parts.append((turned, drawn(2, 0, 3, head), drawn(2, 0, 3, head)))
    scores = torch.cat([torch.einsum("bihd,bjhd->bhj", q, k.expand(2, -1, -1, -1)) for q, k, _ in parts], -1)
    values = torch.cat([v.expand(2, -1, -1, -1) for _, _, v in parts], 1)
    right = torch.einsum("bhj,bjhd->bhd", (scores / head**0.5).softmax(-1), values)[:, None]
    torch.testing.assert_close(attend(parts), right, rtol=1e-13, atol=1e-13)
    with torch.enable_grad():
        assert attend(parts) is None


@pytest.mark.parametrize("window", [1, 2, 5])
@torch.no_grad()
def test_a_window_in_steps_is_the_window_of_the_text_and_leaves_its_states(window):
    torch.manual_seed(window)
    layer = PrefixedWindow(16, 2, 16, window, 3).double()
    x = drawn(2, 13, 16)
    whole, end = layer(x)
    y, state = layer(x[:, :4])
    for t in range(4, 13):
        kept = [part.clone() for part in (state[0], *state[1], *state[2])]
        found, after = layer(x[:, t : t + 1], state)
        torch.testing.assert_close(found[:, 0], whole[:, t - 3], rtol=1e-12, atol=1e-12)
        assert all(torch.equal(a, b) for a, b in zip((state[0], *state[1], *state[2]), kept, strict=True))
        state = after
    for part, other in zip(state[1], end[1], strict=True):
        torch.testing.assert_close(part, other, rtol=1e-12, atol=1e-12)
    assert state[3] == end[3]


@pytest.mark.parametrize("frequency", [None, torch.tensor([0.3, 0.01, 2.0])])
def test_places_turn_a_token_as_they_turn_a_text(frequency):
    torch.manual_seed(0)
    x = drawn(2, 1, 2, 6)
    with torch.no_grad():
        found = rotary(x, 123_456, frequency, 7)
    torch.testing.assert_close(found, rotary(x.requires_grad_(), 123_456, frequency, 7).detach(), rtol=0, atol=1e-10)


def test_what_hangs_on_parameters_follows_each_of_their_changes():
    derived, weight, calls = Derived(), torch.nn.Parameter(torch.ones(2)), []

    def double(given: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return 2 * given

    with torch.no_grad():
        assert derived(double, weight)[0] == derived(double, weight)[0] == 2 and len(calls) == 1
        weight.mul_(3)
        assert derived(double, weight)[0] == 6
        weight.data = torch.ones(2)
        assert derived(double, weight)[0] == 2
    assert derived(double, weight).requires_grad
