"""The Recurrent Memory Transformer against its definition, in pieces, and its gradients through the memory."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, build, state_bytes
from models.layers import rotary, split_heads

SEGMENT, MEMORY = 8, 3


def make(**settings) -> torch.nn.Module:
    torch.manual_seed(0)
    settings = {"segment": SEGMENT, "memory": MEMORY, **settings}
    model = build("rmt", Size(vocab=64, width=16, depth=2, heads=2), **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def defined(model, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the last memory, one whole segment at a time, with a mask and no cache."""
    memory, logits = model.memory.expand(len(tokens), -1, -1), []
    for segment in tokens.split(SEGMENT, dim=1):
        x = torch.cat([memory, model.embedding(segment), memory], 1)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        for block in model.blocks:
            part, normed = block.mixer, block.mixer_norm(x)
            q, k = (split_heads(y, part.heads) for y in part.query_key(normed).chunk(2, -1))
            q, k, v = rotary(q, 0), rotary(k, 0), split_heads(part.value(normed), part.heads)
            scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
            weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
            x = x + part.out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
            x = x + block.feed(block.feed_norm(x))
        x = model.norm(x)
        logits.append(x[:, MEMORY:-MEMORY] @ model.embedding.weight.T)
        memory = x[:, -MEMORY:]
    return torch.cat(logits, 1), memory


def test_model_is_its_definition():
    model, tokens = make(), torch.randint(64, (2, 3 * SEGMENT))
    logits, (memory, read, caches) = model(tokens)
    expected, expected_memory = defined(model, tokens)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(memory, expected_memory, rtol=1e-10, atol=1e-12)
    assert read == 0 and caches == ()
    shorter, _ = model(tokens[:, :11])
    torch.testing.assert_close(shorter, expected[:, :11], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("size", [1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 13])
@pytest.mark.parametrize("detach_every", [None, 2])
def test_pieces_give_the_whole(size, grad, detach_every):
    model, tokens = make(detach_every=detach_every), torch.randint(64, (2, 5 * SEGMENT + 3))
    with torch.set_grad_enabled(grad):
        whole, _ = model(tokens)
        pieces, state = [], None
        for piece in tokens.split(size, dim=1):
            logits, state = model(piece, state)
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-10, atol=1e-12)


def test_no_logit_depends_on_later_tokens_or_other_rows():
    model, tokens = make(), torch.randint(64, (2, 3 * SEGMENT))
    with torch.no_grad():
        logits, _ = model(tokens)
        for t in (0, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 2):
            changed = tokens.clone()
            changed[0, t] = (changed[0, t] + 1) % 64
            moved = (model(changed)[0] - logits).abs().amax(-1)
            assert moved[0, :t].sum() < 1e-12 and moved[1].sum() < 1e-12
            assert moved[0, t:].min() > 0  # later segments too: the memory told them


@pytest.mark.parametrize("length", [SEGMENT, SEGMENT + 3])
def test_state_is_untouched_and_can_be_used_twice(length):
    model, tokens = make(), torch.randint(64, (2, 3 * SEGMENT))
    with torch.no_grad():
        _, state = model(tokens[:, :length])
        memory = state[0].clone()
        once, other = model(tokens[:, length:], state)[0], model(tokens[:, :9], state)[0]
        again = model(tokens[:, length:], state)[0]
    assert torch.equal(once, again) and torch.equal(state[0], memory)
    assert not torch.allclose(other[:, 0], once[:, 0])


def test_state_does_not_grow_with_the_context():
    model, tokens = make(), torch.randint(64, (1, 6 * SEGMENT))
    sizes, state = [], None
    with torch.no_grad():
        for t in range(tokens.shape[1]):
            state = model(tokens[:, t : t + 1], state)[1]
            sizes.append(state_bytes(state))
    assert sizes[:SEGMENT] == sizes[-SEGMENT:]
    assert sizes[-1] == MEMORY * 16 * 8  # after a whole segment the memory is all there is


def reach(model, pieces: list[int]) -> list[bool]:
    """For each of the first three segments: whether the last token's logits have a gradient through it."""
    tokens = torch.arange(4 * SEGMENT)[None]  # no token twice
    state, start = None, 0
    for size in pieces:
        logits, state = model(tokens[:, start : start + size], state)
        start += size
    # The logit of token 63, which the text does not hold: other rows of the embedding act as inputs alone.
    (gradient,) = torch.autograd.grad(logits[0, -1, 63], model.embedding.weight)
    return [bool(gradient[n * SEGMENT : (n + 1) * SEGMENT].any()) for n in range(3)]


@pytest.mark.parametrize("pieces", [[4 * SEGMENT], [5, 3, 9, 15]], ids=str)
def test_gradients_pass_through_the_memory_unless_it_is_detached(pieces):
    assert reach(make(), pieces) == [True, True, True]
    assert reach(make(detach_every=1), pieces) == [False, False, False]
    assert reach(make(detach_every=2), pieces) == [False, False, True]


def test_every_parameter_learns():
    model, tokens = make(), torch.randint(64, (2, 3 * SEGMENT + 2))
    logits, _ = model(tokens[:, :-1])
    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.norm() > 0, key
    assert (model.memory.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("settings", [{"segment": 0}, {"memory": 0}, {"detach_every": 0}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="RMT needs"):
        make(**settings)
