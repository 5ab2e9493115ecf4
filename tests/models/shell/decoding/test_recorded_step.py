"""Decoded tokens from a record: the digits of the layers, for as long as nothing changes that they hang on."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import baselines  # noqa: F401  fills the registry
from models.ops import native_build, providers
from models.shell.decoding.recorded_step import IN_VAIN, SETTLED
from models.shell.model import Block, LanguageModel
from tests.support.recorded_steps import MODELS, SIZE, decoded, is_equal, made, of_layers, records, settled, text

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="records are made of compiled calls")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_record_gives_the_digits_of_the_layers(name, rows):
    model, tokens = made(name, **MODELS[name]), text(rows, 90)
    found = decoded(model, tokens)
    assert records(model) and is_equal(found, of_layers(model, tokens))


def test_a_record_is_used_as_soon_as_it_is_settled():
    model, tokens = made(), text(time=SETTLED + 2)
    _, state = decoded(model, tokens[:, : SETTLED + 1])  # the first token has no state before it
    assert not records(model)
    decoded(model, tokens[:, -1:], state)
    assert len(records(model)) == 1


def test_float64_has_its_own_digits():
    model, tokens = made().double(), text()
    assert is_equal(decoded(model, tokens), of_layers(model, tokens)) and records(model)


def written(model):
    with torch.no_grad():
        model.blocks[0].mixer.qkv.weight.mul_(1.5)


def replaced(model):
    model.blocks[0].mixer.out.weight = nn.Parameter(2 * model.blocks[0].mixer.out.weight)


def loaded(model):
    model.load_state_dict({name: 1.1 * part for name, part in model.state_dict().items()})


def other_setting(model):
    model.blocks[1].mixer.highest_rate = 2.0


def other_layer(model):
    model.blocks[1].feed = nn.Identity()


def listened(model):
    model.blocks[0].register_forward_hook(lambda module, given, output: (2 * output[0], output[1]))


@pytest.mark.parametrize("change", [written, replaced, loaded, other_setting, other_layer, listened])
def test_a_change_is_seen_at_once(change):
    model, state = settled()
    before = decoded(model, text(time=8), state)
    change(model)
    found = decoded(model, text(time=8), state)
    assert is_equal(found, of_layers(model, text(time=8), state)) and not torch.equal(found[0], before[0])


def test_who_listens_to_all_modules_is_told():
    model, state = settled()
    heard = []
    with nn.modules.module.register_module_forward_hook(lambda module, given, output: heard.append(type(module))):
        decoded(model, text(time=1), state)
    assert LanguageModel in heard and Block in heard


def test_with_a_gradient_and_under_autocast_the_layers_compute():
    model, state = settled()
    y, _ = model(text(time=1), state)
    assert y.requires_grad
    with torch.no_grad(), torch.autocast("cpu"):
        assert model(text(time=1), state)[0].dtype is torch.bfloat16


def test_what_computes_is_noted():
    model, state = settled()
    with providers.watch() as names:
        decoded(model, text(time=1), state)
    assert "native" in names


WITHOUT = {"gated-deltanet": {"provider": "chunked"}, "transformer": {}, "transformer-xl": {}, "rmt": {"segment": 8}}


@pytest.mark.parametrize("name", WITHOUT)
def test_plain_pytorch_and_states_whose_shape_or_calls_hang_on_the_place_have_no_record(name):
    model = made(name, **WITHOUT[name])
    decoded(model, text())
    assert not records(model)


@pytest.mark.parametrize("name", ["gated-deltanet", "mamba2"])
def test_where_nothing_compiled_computes_no_record_is_tried(name, monkeypatch):
    """Listening to a step takes some thirty times as long as the step, for each place in a segment."""
    monkeypatch.setattr("models.shell.decoding.recorded_step.recorded", lambda *_: pytest.fail("a record was tried"))
    decoded(made(name, provider="chunked"), text())


def test_probing_and_other_threads_do_not_take_it():
    model, state = settled()
    [entry] = model._steps._entries.values()
    uses = entry.uses
    with providers.probing():
        decoded(model, text(time=2), state)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        decoded(model, text(time=1), state)
    finally:
        torch.set_num_threads(threads)
    assert entry.uses == uses


def test_a_token_that_is_none_is_refused_by_the_layers_words_and_does_no_harm():
    model, state = settled()
    for token in (64, -1):
        wrong = torch.tensor([[token]])
        with pytest.raises(IndexError) as by_record:
            decoded(model, wrong, state)
        with pytest.raises(IndexError) as by_layers:
            of_layers(model, wrong, state)
        assert str(by_record.value) == str(by_layers.value) and len(records(model)) == 1
    assert is_equal(decoded(model, text(time=4), state), of_layers(model, text(time=4), state))


def test_copies_begin_without_records():
    model, state = settled()
    expected = of_layers(model, text(time=4), state)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not records(other) and is_equal(decoded(other, text(time=4), state), expected)


class Deciding(nn.Module):
    """A mixer that asks what its numbers are, or counts the tokens that passed."""

    def __init__(self, asks: bool):
        super().__init__()
        self.asks, self.passed, self.norm = asks, 0, None

    def forward(self, x, state=None):
        state = x.new_zeros(len(x), x.shape[2]) if state is None else state
        if self.asks:
            y = x + state[:, None] if state.sum() > 0 else x - state[:, None]
        else:
            self.passed += 1
            y = x * self.passed
        return y, state + x[:, -1]


@pytest.mark.parametrize("asks", [True, False])
def test_a_layer_that_decides_by_numbers_or_remembers_is_never_recorded(asks):
    torch.manual_seed(0)
    model = LanguageModel(SIZE, [Block(32, Deciding(asks), 16)]).eval()
    other = copy.deepcopy(model)
    found, expected = decoded(model, text(time=40)), of_layers(other, text(time=40))
    assert is_equal(found, expected) and not records(model)
    [entry] = model._steps._entries.values()
    assert entry.is_refused and entry._in_vain in (0, IN_VAIN)


class Counting(nn.Module):
    """A mixer that turns about after so many tokens, which it reads out of its state in one way or another."""

    def __init__(self, read):
        super().__init__()
        self.read, self.norm = read, None

    def forward(self, x, state=None):
        state = x.new_zeros(len(x), 1) if state is None else state
        return (-x if self.read(state) > 20 else x), state + 1


WAYS = {"tolist": lambda x: x.tolist()[0][0], "numpy": lambda x: x.numpy()[0, 0], "item": lambda x: x[0, 0].item()}


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_that_turns_about_long_after_the_trials_does_so(way):
    torch.manual_seed(0)
    model = LanguageModel(SIZE, [Block(32, Counting(WAYS[way]), 16)]).eval()
    assert is_equal(decoded(model, text(time=40)), of_layers(model, text(time=40)))
    assert not records(model)
