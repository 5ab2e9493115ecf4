"""A place in the text, which a state counts: a layer that looks at it has a record for each, or none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.ops import native_build
from models.shell.decoding.place import Asked, Places
from models.shell.decoding.recorded_step import SETTLED
from models.shell.model import Block, LanguageModel
from tests.support.recorded_steps import SIZE, decoded, is_equal, of_layers, records, text

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="records are made of compiled calls")


class Standing(nn.Module):
    """A mixer whose state is a number, that goes on by one or begins again, and that does something with it."""

    def __init__(self, use, length):
        super().__init__()
        self.use, self.period, self.norm = use, length, None
        self.table = nn.Parameter(torch.randn(64, 32))

    def forward(self, x, state=None):
        place = 0 if state is None else state
        after = place + 1
        return self.use(self, x, place), after if self.period == 1 else after % self.period


def turns(mixer, x, place):
    return -x if place > 20 else x


def is_index(mixer, x, place):
    return x + mixer.table[place]


def is_power(mixer, x, place):
    return x + 2.0**place


def is_hashed(mixer, x, place):
    return x * {place: 2.0}[place]


def catches(mixer, x, place):
    try:
        return x * (2.0 if place == 30 else 1.0)
    except RuntimeError:
        return x


def standing(use, length=1):
    torch.manual_seed(0)
    return LanguageModel(SIZE, [Block(32, Standing(use, length), 16)]).eval()


@pytest.mark.parametrize("use", [turns, is_index, is_power, is_hashed, catches])
def test_a_layer_that_looks_at_its_place_in_the_text_is_never_recorded(use):
    model = standing(use)
    found = [
        decoded(model, text(time=40)) for _ in range(SETTLED + 1)
    ]  # nor of single places that a benchmark meets again
    assert all(is_equal(one, of_layers(model, text(time=40))) for one in found) and not records(model)


@pytest.mark.parametrize("use", [turns, is_index, is_power, is_hashed, catches])
def test_a_layer_that_looks_at_its_place_in_a_segment_has_a_record_for_each(use):
    model, tokens = standing(use, 4), text(time=40)
    assert is_equal(decoded(model, tokens), of_layers(model, tokens)) and len(records(model)) == 4


def is_factor(mixer, x, place):
    return (x + 0.01 * x.new_ones(1) * place) / (place + 1 or 1) + (place + x)


def test_a_place_by_which_tensors_are_multiplied_and_divided_is_another_at_each_token():
    model, tokens = standing(is_factor), text(time=40)
    assert is_equal(decoded(model, tokens), of_layers(model, tokens)) and len(records(model)) == 1


def test_a_place_goes_on_and_is_put():
    places = Places([5, 7])
    first, second = places.first
    later = 1 + (second + 2) - 1
    assert (first.number, second.number, later.number) == (5, 7, 9)
    places.put([10, 20])
    assert (first.number, second.number, later.number) == (10, 20, 22)
    assert not places.asked and places.unknown == [0, 1]
    assert Places([5, 7], known=[1]).first[1] == 7


@pytest.mark.parametrize(
    "ask", [bool, hash, lambda place: place < 3, lambda place: 3 == place, lambda place: place % 4]
)
def test_whoever_looks_at_a_place_has_asked(ask):
    places = Places([5, 7])
    with pytest.raises(Asked):
        ask(places.first[1])
    assert places.asked == {1}
