"""Models whose layers differ: the pattern, what each mixer is told and given, what is matched, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance import costs
from models.conformance.subject import difference, feed
from models.language_model import Match, Size, build, parameter_count, seeded, solve
from models.matching.counts import largest_state, training_flops
from models.matching.match import NoMatch
from models.matching.shapes_only import shapes_only
from models.matching.solver import reference_parameters
from models.registry import register
from models.shell.hybrid import names_of
from schema.terms import state_tolerance, tolerance

SIZE = Size(64, 32, 4, 2)


def kinds(model: nn.Module) -> list[str]:
    return [type(block.mixer).__name__ for block in model.blocks]


@pytest.mark.parametrize(
    ("layers", "full"),
    [
        ("mamba", ("mamba",)),
        ("gated-deltanet*3,transformer", ("gated-deltanet",) * 3 + ("transformer",)),
        (("mamba * 2", "retnet"), ("mamba", "mamba", "retnet")),
        (["mamba", "retnet*1"], ("mamba", "retnet")),
    ],
)
def test_a_pattern_is_written_in_full_or_compactly(layers, full):
    assert names_of(layers) == full
    assert registry.entry("hybrid").parts({"layers": layers}) == full


def test_the_pattern_is_repeated_through_the_depth():
    model = build("hybrid", Size(64, 32, 5, 2), layers="retnet,gla,transformer")
    assert kinds(model) == ["RetNet", "GLA", "Transformer", "RetNet", "GLA"]
    assert len({block.feed.down.in_features for block in model.blocks}) == 1


@pytest.mark.parametrize(
    "layers", ["gated-deltanet,transformer", "mamba*2,transformer", "titans-lmm,gla*3", "mamba,mamba2"]
)
def test_parameters_are_matched_over_the_sum(layers):
    with shapes_only():
        model = build("hybrid", SIZE, layers=layers)
    target = reference_parameters(SIZE)
    assert abs(parameter_count(model) / target - 1) <= tolerance(target)
    mixes = [getattr(block.mixer, "mixes_channels", False) for block in model.blocks]
    assert [block.feed is None for block in model.blocks] == mixes


def test_where_some_mix_channels_the_depth_is_solved_and_swiglu_can_be_had_everywhere():
    layers = "mamba*2,transformer-window"
    assert len(build("hybrid", SIZE, layers=layers).blocks) > SIZE.depth
    model = build("hybrid", SIZE, layers=layers, swiglu_everywhere=True)
    assert len(model.blocks) == SIZE.depth and all(block.feed is not None for block in model.blocks)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_pattern_that_is_not_held_names_a_depth_that_holds_it(depth):
    size, layers = Size(64, 32, depth, 2), ("retnet", "retnet", "transformer")
    with pytest.raises(ValueError, match=rf"3 layers .* do not fit into a depth of {depth}: .* depth of 3 or more"):
        build("hybrid", size, layers=layers)
    assert len(build("hybrid", Size(64, 32, 3, 2), layers=layers).blocks) == 3


def test_a_pattern_with_solved_depth_that_is_too_long_names_a_depth_too():
    layers = "mamba*7,transformer"
    with pytest.raises(NoMatch, match=r"its 8 layers need a size of depth (\d+) or more") as told:
        build("hybrid", Size(64, 64, 1, 2), layers=layers)
    depth = int(str(told.value).partition("depth ")[2].split("depth ")[-1].split()[0])
    assert len(build("hybrid", Size(64, 64, depth, 2), layers=layers).blocks) >= 8


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": "retnett,gla"}, "layers names 'retnett' .did you mean retnet..*no registered.*--models beside hybrid"),
        ({"layers": "rmt,gla"}, "layers names 'rmt', which is a whole language model"),
        ({"layers": ("gla*0",)}, "layers has 'gla.0': write names parted by commas, each alone or with how often"),
        ({"layers": "gla,"}, "layers has ''"),
        ({"layers": ()}, "layers is empty"),
        ({"layers": 3}, "has the wrong type"),
        ({"layer_settings": {"window": 3}}, "layer_settings has 'window'; write gated-deltanet.SETTING, transformer.SETTING"),
        ({"layer_settings": {"gla.inner": 3}}, "'gla.inner', and 'gla' is none of the layers; write gated-deltanet.SETTING"),
        ({"layer_settings": {"gated-deltanet.kernal": 3}}, "'gated-deltanet' has no setting 'kernal' .did you mean kernel"),
        ({"layer_settings": {"gated-deltanet.kernel": "3"}}, "gated-deltanet.kernel='3' has the wrong type"),
        ({"layer_settings": {"gated-deltanet.index": 3}}, "has no setting 'index'"),
    ],
)  # fmt: skip
def test_bad_patterns_and_settings_are_one_sentence(settings, says):
    with pytest.raises(ValueError, match=says):
        build("hybrid", SIZE, **settings)


def test_each_mixer_has_settings_of_its_own_and_json_carries_them():
    settings = {
        "layers": ["gated-deltanet", "transformer-window"],
        "layer_settings": {"transformer-window.window": 7, "gated-deltanet.kernel": 3},
    }
    model = build("hybrid", SIZE, **json.loads(json.dumps(settings)))
    assert [block.mixer.window for block in model.blocks[1::2]] == [7, 7]
    assert model.blocks[0].mixer.convolution.kernel == 3
    assert model.period == 64 and model.fixed_state


def test_one_provider_and_one_inner_width_for_all_but_who_says_otherwise():
    own = {"gla.provider": "chunked", "gla.inner": 16}
    model = build("hybrid", SIZE, layers="retnet,gla", provider="recurrence", inner=24, layer_settings=own)
    retnet, gla = (block.mixer for block in model.blocks[:2])
    assert (retnet.provider, gla.provider) == ("recurrence", "chunked")
    assert retnet.out.in_features != build("hybrid", SIZE, layers="retnet").blocks[0].mixer.out.in_features


@pytest.fixture
def mine(monkeypatch):
    """Registers a mixer that is told its layer; gives the list of the places that it is told."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    told: list[tuple[int, int]] = []

    @register("mine", paper="here", equation="y = W x")
    class Mine(nn.Module):
        fixed_state = True
        no_gradient = {"unused": "a reason"}

        def __init__(self, width: int, heads: int, index: int, depth: int):
            super().__init__()
            told.append((index, depth))
            self.out, self.unused = nn.Linear(width, width), nn.Parameter(torch.zeros(3))

        def forward(self, x, state=None):
            return self.out(x), ()

    return told


def test_a_mixer_is_told_its_place_in_the_whole_model(mine):
    build("hybrid", SIZE, layers="transformer,mine", match=False)
    assert mine == [(1, 4), (3, 4)]
    mine.clear()
    model = build("hybrid", SIZE, layers="mamba*2,mine")
    depth = len(model.blocks)
    assert depth > 4 and mine[-depth // 3 :][-1][1] == depth
    assert model.no_gradient == {"unused": "a reason"}


def test_titans_memory_in_chosen_layers_reads_a_text_in_pieces():
    layers, size = "gated-deltanet,titans-lmm,transformer-window", Size(64, 32, 3, 2)
    model = seeded(
        "hybrid", size, 0, layers=layers, layer_settings={"transformer-window.window": 8, "titans-lmm.chunk": 4}
    )
    tokens = torch.randint(64, (2, 90), generator=torch.Generator().manual_seed(0))
    whole, _ = feed(model, tokens)
    assert difference(feed(model, tokens, [1, 33, 34, 77])[0], whole) < 1e-4
    assert model.fixed_state


def test_mixers_stay_as_they_initialised_themselves():
    model, alone = (seeded(name, SIZE, 3, **own) for name, own in (("hybrid", {"layers": "gla,retnet"}), ("gla", {})))
    for name, values in model.blocks[0].mixer.named_parameters():
        assert torch.equal(values, alone.blocks[0].mixer.get_parameter(name))


def test_state_is_fixed_if_all_layers_states_are_and_is_matched_over_the_sum():
    entry, match, own = (
        registry.entry("hybrid"),
        Match("state", state_bytes=12_000),
        {"layers": "retnet,gated-deltanet"},
    )
    assert (
        entry.says("fixed_state", own)
        and not entry.says("fixed_state", {})
        and entry.says("fixed_state", {"layers": "gla"})
    )
    size = Size(64, 32, 2, 2)
    found = costs.match_report("hybrid", size, match, **own)
    model = seeded("hybrid", size, 0, match=match, **own)
    assert found.figure == pytest.approx(12_000, rel=state_tolerance(12_000))
    assert largest_state(model, torch.zeros(1, 128, dtype=torch.long), 120) == found.figure
    assert parameter_count(model) == found.parameters == pytest.approx(found.reference_parameters, rel=0.05)
    assert costs.match_report("hybrid", size, match).figure is None  # of full attention


def test_operations_are_those_of_the_layers_and_are_matched_over_the_sum():
    layers, match = "mamba*2,transformer-window", Match("flops", flops_length=128)
    found = costs.match_report("hybrid", SIZE, match, layers=layers)
    assert found.figure == pytest.approx(found.aim, rel=tolerance(found.reference_parameters))
    one, other = (build("hybrid", SIZE, layers=name, match=False) for name in ("gla", "retnet"))
    both = build("hybrid", SIZE, layers="gla,retnet", match=False)
    assert training_flops(both, 128) == (training_flops(one, 128) + training_flops(other, 128)) / 2


def test_a_depth_that_holds_the_pattern_changes_no_shape_of_a_uniform_pattern():
    alone, hybrid = solve(registry.entry("gla"), SIZE, {}), solve(registry.entry("hybrid"), SIZE, {"layers": "gla*2"})
    assert (alone.depth, alone.feed) == (hybrid.depth, hybrid.feed)
