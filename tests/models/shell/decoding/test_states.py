"""States beside a record: read where they are given, written where they are handed out, and nobody else's memory touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import baselines  # noqa: F401  fills the registry
from models.ops import native_build
from models.shell.model import Block, LanguageModel
from tests.support.recorded_steps import (
    MODELS,
    SIZE,
    decoded,
    is_equal,
    leaves,
    made,
    of_layers,
    records,
    settled,
    text,
)

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="records are made of compiled calls")


@pytest.mark.parametrize("name", MODELS)
def test_a_state_that_is_given_stays_as_it_is_and_can_be_gone_on_from_twice(name):
    model, state = settled(name, **MODELS[name])
    before = [leaf.clone() for leaf in leaves(state)]
    first = decoded(model, text(time=5), state)
    assert all(map(torch.equal, before, leaves(state)))
    assert is_equal(first, decoded(model, text(time=5), state))


def test_states_are_read_where_they_are_given_and_written_where_they_are_handed_out():
    model, state = settled()
    [record] = records(model)
    assert (
        not record.returned.calls and len(record.inputs._copied) == 1
    )  # tokens, whose indices an operator may have to refuse
    own = [one.clone() for one in record.inputs._own]
    assert is_equal(decoded(model, text(time=4), state), of_layers(model, text(time=4), state))
    assert all(map(torch.equal, own[1:], record.inputs._own[1:]))


class Sharing(nn.Module):
    """A mixer whose state has a part of the state before, a weight, a tensor of its own, and one sum twice."""

    norm = None

    def __init__(self):
        super().__init__()
        self.weight, self.other = nn.Parameter(torch.randn(1, 32)), torch.randn(1, 2, 32)

    def forward(self, x, state=None):
        new = x.new_zeros(len(x), 2, x.shape[2])
        old = new if state is None else state[0]
        after = torch.cat([old[:, 1:], x[:, -1:] + self.weight], 1) + self.other
        return x + after[:, :1] + self.other[:, :1], (after, old[:, :1], self.weight.detach(), self.other, after[:, 1:])


def test_memory_that_parts_of_a_state_share_with_others_stays_where_it_is():
    torch.manual_seed(0)
    model, tokens = LanguageModel(SIZE, [Block(32, Sharing(), 16)]).eval(), text(time=60)
    found, state = decoded(model, tokens[:, :40])
    assert is_equal((found, state), of_layers(model, tokens[:, :40])) and records(model)
    before = [leaf.clone() for leaf in leaves(state)]
    assert is_equal(decoded(model, tokens[:, 40:], state), of_layers(model, tokens[:, 40:], state))
    assert all(map(torch.equal, before, leaves(state)))


class Spread(nn.Module):
    """A mixer whose state is one number a row, spread over a width that it takes no memory for."""

    norm = None

    def forward(self, x, state=None):
        before = x.new_zeros(len(x), 1, 1) if state is None else state[0][..., :1]
        return x + before, ((before + x[:, -1:, :1]).expand(-1, -1, 32),)


def test_a_state_that_takes_less_memory_than_it_has_numbers_is_handed_out_whole():
    torch.manual_seed(0)
    model, tokens = LanguageModel(SIZE, [Block(32, Spread(), 16)]).eval(), text(time=40)
    assert is_equal(decoded(model, tokens), of_layers(model, tokens)) and records(model)


def test_what_is_returned_belongs_to_the_caller():
    model, state = settled()
    (y, after), expected = decoded(model, text(time=1), state), of_layers(model, text(time=2), state)
    kept = y.clone()
    again, _ = decoded(model, text(time=2)[:, 1:], after)
    assert torch.equal(y, kept) and torch.equal(again, expected[0][:, 1:])
    y.zero_()
    for leaf in leaves(after):
        leaf.zero_()
    assert is_equal(decoded(model, text(time=2), state), expected)


def test_a_large_state_has_no_record(monkeypatch):
    monkeypatch.setattr("models.shell.decoding.record.LARGEST", 1000)
    model = made()
    decoded(model, text())
    assert not records(model)


@pytest.mark.parametrize(("name", "has_record"), [("gated-deltanet", True), ("linear-attention", False)])
def test_of_a_large_state_what_is_copied_counts(name, has_record, monkeypatch):
    """Linear attention's state goes through operators of PyTorch."""
    monkeypatch.setattr("models.shell.decoding.record.COPIED", 300)
    model = made(name)
    decoded(model, text())
    assert bool(records(model)) is has_record


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_state_of_any_layout_is_read(name):
    """Turned about in memory, spread over more of it, and a part of one that is larger."""
    model, state = settled(name)
    expected = of_layers(model, text(time=8), state)

    def laid_out(way, state):
        return tuple([laid_out(way, part) for part in state]) if isinstance(state, tuple) else way(state)

    for way in (
        lambda x: x.mT.contiguous().mT,
        lambda x: torch.stack([x, x], -1)[..., 0],
        lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    ):
        assert is_equal(decoded(model, text(time=8), laid_out(way, state)), expected)


class Writing(nn.Module):
    """A mixer that writes into a buffer of its state where it stands, as a cache does, and hands the buffer on."""

    norm, period = None, 4

    def forward(self, x, state=None):
        room, place = (x.new_zeros(len(x), 4, x.shape[2]), 0) if state is None else state
        for token in x.unbind(1):
            room[:, place] = token
            place = (place + 1) % 4
        return x + room.sum(1, keepdim=True), (room, place)


def test_a_buffer_that_a_layer_writes_into_is_handed_on_with_what_was_written():
    torch.manual_seed(0)
    model, tokens = LanguageModel(SIZE, [Block(32, Writing(), 16)]).eval(), text(time=60)
    assert is_equal(decoded(model, tokens), of_layers(model, tokens)) and len(records(model)) == 4


def test_only_so_many_kinds_of_state_are_remembered_and_old_ones_without_a_record_make_room(monkeypatch):
    monkeypatch.setattr("models.shell.decoding.recorded_step.MOST", 6)
    model = made("titans-mag", window=40, chunk=4)
    decoded(model, text(time=64))  # of the window that fills up each kind is met once
    assert len(records(model)) == 4 and len(model._steps._entries) == 6


def test_all_records_together_hold_no_more_than_so_much(monkeypatch):
    monkeypatch.setattr("models.shell.decoding.recorded_step.HELD", 10_000)
    model = made("titans-mac", segment=16)
    decoded(model, text(time=120))
    assert 0 < len(records(model)) < 16
