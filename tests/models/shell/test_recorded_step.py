"""Decoded tokens from a record: the digits of the layers, for as long as nothing changes that they hang on."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import baselines  # noqa: F401  fills the registry
from models.language_model import seeded
from models.ops import native_build, providers
from models.shell.decoding import calls
from models.shell.decoding.place import Asked, Places
from models.shell.decoding.recorded_step import IN_VAIN, SETTLED, TRIALS, without_records
from models.shell.model import Block, LanguageModel, Size

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="records are made of compiled calls")
SIZE = Size(64, 32, 2, 2)
PLAIN = "gated-deltanet mamba titans-lmm gru s5 rwkv4 mlstm hgrn2 yaad retnet linear-attention rebased"
MODELS = {name: {} for name in PLAIN.split()}
# With a place in the text, and with the tokens of an open segment.
MODELS |= {
    "titans-mag": {"window": 8},
    "titans-mal": {"window": 8},
    "titans-mac": {"segment": 16},
    "transformer-window": {"window": 8},
}


def made(name="gated-deltanet", **settings):
    return seeded(name, SIZE, 0, **settings).eval()


def text(rows=1, time=64):
    return torch.randint(64, (rows, time), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def decoded(model, tokens, state=None):
    """Logits of tokens one by one, and the last state."""
    found = []
    for t in range(tokens.shape[1]):
        y, state = model(tokens[:, t : t + 1], state)
        found.append(y)
    return torch.cat(found, 1), state


def leaves(state):
    if not isinstance(state, torch.Tensor | tuple):
        return [torch.tensor(-1 if state is None else state)]
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in state for leaf in leaves(part)]


def of_layers(model, tokens, state=None):
    with without_records():
        return decoded(model, tokens, state)


def records(model):
    return [
        entry.record for entry in model._steps._entries.values() if entry.record is not None and entry.uses > TRIALS
    ]


def is_equal(one, other):
    return torch.equal(one[0], other[0]) and all(map(torch.equal, leaves(one[1]), leaves(other[1])))


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


def settled(name="gated-deltanet", **settings):
    """A model that decodes from a record, and a state to go on from."""
    model = made(name, **settings)
    _, state = decoded(model, text(time=128))
    assert records(model)
    return model, state


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


def test_neighbouring_calls_are_made_in_one_and_python_makes_those_that_cannot_be_prepared(monkeypatch):
    expected = of_layers(made(), text())

    def count():
        model = made()
        assert is_equal(decoded(model, text()), expected)
        [record] = records(model)
        return len(record.calls)

    walked = count()
    monkeypatch.setattr("models.ops.prepared_calls.walk._walker", lambda: None)
    apart = count()
    assert walked < apart / 2


def test_weights_that_compiled_code_reads_are_laid_out_once(monkeypatch):
    counts, joined = [], calls.joined
    monkeypatch.setattr("models.shell.decoding.record.joined", lambda made: counts.append(len(made)) or joined(made))
    decoded(made("gru"), text())
    monkeypatch.setattr("models.ops.recurrent_cell.native.only_read", lambda tensor: tensor)
    model = made("gru")
    assert is_equal(decoded(model, text()), of_layers(model, text()))
    assert counts == [counts[1] - SIZE.depth, counts[1]]


def test_what_has_no_form_that_writes_into_memory_is_computed_and_copied():
    x, weight = torch.randn(2, 8), torch.randn(8)
    heard = calls.Listener([x, weight])
    with torch.no_grad(), heard:
        normed = nn.functional.layer_norm(x, (8,), weight)
        wide = x.double()
    x.mul_(3)
    for again, given in calls.joined(heard.calls):
        again(*given)
    assert torch.equal(normed, nn.functional.layer_norm(x, (8,), weight)) and torch.equal(wide, x.double())


def test_one_call_that_cannot_be_prepared_is_made_between_the_others(monkeypatch):
    prepared, refused = calls.prepared, []

    def but_norms(run, given):
        if run.__name__ != "rms_norm":
            return prepared(run, given)
        refused.append(run)
        return None

    monkeypatch.setattr(calls, "prepared", but_norms)
    model = made()
    assert is_equal(decoded(model, text()), of_layers(model, text())) and refused
    [record] = records(model)
    assert refused == [run for run, _ in record.calls if run in refused]


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
