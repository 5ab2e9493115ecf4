"""Matches other than by parameters: equal training FLOPs, equal state, and who keeps the parameter match."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance import costs
from models.language_model import Match, Size, build, seeded, solve
from models.matching import solver
from models.matching.counts import largest_state, parameter_count, training_flops
from models.ops import providers
from models.shell.model import Shape, deep_enough
from schema.terms import state_tolerance, tolerance
from tests.support.models import CORE, core_first

SIZE = Size(256, 32, 1, 2)
LENGTH = 128
BYTES = 4096
FLOPS, STATE = Match("flops", flops_length=LENGTH), Match("state", state_bytes=BYTES)
# It grows; has no setting; is larger at the least width; comes with more parameters.
KEEP_STATE = {"transformer", "hybrid", "rmt", "ttt-mlp", "titans-mac", "lact", "rwkv6", "log-linear-mamba2"}
KEEP_STATE |= {
    "bahdanau",
    "based",
    "bmojo",
    "knn-lm",
    "memoryllm",
    "polysketch",
    "scatterbrain",
    "r-transformer",
    "armt",
    "block-recurrent",
    "feng",
    "memformer",
    "transformer-xl",
}
# A vector is their state: a few numbers a channel, which no width within the parameters brings to so many bytes.
KEEP_STATE |= {"lstm", "gru", "janet", "slstm", "lru", "s5", "rwkv4", "hawk", "mingru", "minlstm"}
# 128 states for every head, convolutions of 64 numbers a channel, seven steps of a cell a token: most of the work at any width.
KEEP_FLOPS = {"mamba3", "log-linear-mamba2", "s4", "r-transformer"}
SLOW = ("titans-mac", "titans-mal")


def shape(name: str, match: Match, **settings) -> Shape:
    return solve(registry.entry(name), size_of(name), settings, match)


def size_of(name: str) -> Size:
    """One layer, or as many as the model's pattern has."""
    return deep_enough(registry.entry(name), SIZE)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", core_first())
def test_training_flops_are_the_references(name):
    with torch.device("meta"):
        figure = training_flops(build(name, size_of(name), match=FLOPS), LENGTH)
    found = costs.match_report(name, size_of(name), FLOPS)
    assert found.figure == figure
    assert found.aim == costs.training_flops_per_token("transformer", size_of(name), LENGTH)
    if name in KEEP_FLOPS:
        assert shape(name, FLOPS) == shape(name, Match())
    else:
        assert figure == pytest.approx(found.aim, rel=tolerance(found.reference_parameters))


def test_equal_flops_let_parameters_float():
    found = costs.match_report("titans-lmm", SIZE, FLOPS)
    assert abs(found.parameters / found.reference_parameters - 1) > tolerance(found.reference_parameters)
    assert shape("transformer", FLOPS) == shape("transformer", Match())


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW or name not in CORE)) for name in registry.names()],
)
def test_state_has_the_bytes_asked_for_and_parameters_stay_matched(name):
    found = costs.match_report(name, size_of(name), STATE)
    assert found.aim == BYTES
    assert found.parameters == pytest.approx(found.reference_parameters, rel=tolerance(found.reference_parameters))
    if name in KEEP_STATE:
        assert shape(name, STATE) == shape(name, Match())
    else:
        assert found.figure == pytest.approx(BYTES, rel=state_tolerance(BYTES))


@pytest.mark.parametrize("name", ["gated-deltanet", "mamba", "mamba2", "transformer-window", "rmt", "titans-lmm"])
def test_figure_is_that_of_the_model_that_is_built(name):
    model, found = seeded(name, SIZE, 0, match=STATE), costs.match_report(name, SIZE, STATE)
    start = 3 * model.period
    tokens = torch.zeros(1, start + model.period, dtype=torch.long)
    assert largest_state(model, tokens, start) == found.figure
    assert parameter_count(model) == found.parameters


def test_state_beyond_reach_leaves_the_parameter_match():
    huge = Match("state", state_bytes=2**30)
    assert shape("retnet", huge) == shape("retnet", Match())
    assert costs.match_report("retnet", SIZE, huge).figure == costs.costs("retnet", SIZE, 64).state_bytes


def test_flops_beyond_reach_leave_the_parameter_match():
    size = Size(128, 32, 1, 2)  # where Mamba-2's 128 states are most of its work, whatever its inner width
    found = costs.match_report("mamba2", size, Match("flops", flops_length=64))
    assert found.figure > 1.2 * found.aim
    assert found == costs.match_report("mamba2", size, Match("flops", flops_length=64), states=128)
    assert found.parameters == costs.match_report("mamba2", size, Match()).parameters


def test_setting_that_is_given_is_not_solved():
    assert shape("retnet", STATE, inner=32).state is None
    assert costs.match_report("retnet", SIZE, STATE, inner=32).figure == 4 * 32 * 32 // 2


def test_growing_state_and_absent_formula_have_no_figure(monkeypatch):
    assert costs.match_report("transformer", SIZE, STATE).figure is None
    monkeypatch.setattr(solver, "_solved", {})
    monkeypatch.delattr(registry.entry("retnet").cls, "flops")
    assert costs.match_report("retnet", SIZE, FLOPS).figure is None
    assert shape("retnet", FLOPS) == shape("retnet", Match())


def test_search_leaves_no_trace_in_weights_or_providers(monkeypatch):
    monkeypatch.setattr(solver, "_solved", {})
    with providers.watch() as ran, torch.device("meta"):
        assert build("deltanet", SIZE, match=STATE).embedding.weight.is_meta
    assert ran == set()
    solved = seeded("deltanet", SIZE, 3, match=STATE).state_dict()
    solver._solved.clear()
    anew = seeded("deltanet", SIZE, 3, match=STATE, provider="recurrence").state_dict()
    assert all(torch.equal(solved[name], tensor) for name, tensor in anew.items())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"by": "weights"}, "match is one of parameters, state, flops, not 'weights'"),
        ({"by": "state"}, "match 'state' needs state_bytes, a whole number of at least 1, not None"),
        ({"by": "flops", "flops_length": 0}, "match 'flops' needs flops_length, .* not 0"),
        ({"by": "flops", "flops_length": 9, "state_bytes": 9}, "'flops' takes no state_bytes; .* match by 'state'"),
        ({"state_bytes": 9}, "match 'parameters' takes no state_bytes"),
    ],
)
def test_wrong_match_is_one_sentence(given, says):
    with pytest.raises(ValueError, match=says):
        Match(**given)


def test_build_says_what_a_match_is():
    with pytest.raises(ValueError, match="match takes a Match .* or False, not 'state'"):
        build("retnet", SIZE, match="state")


def test_a_search_builds_two_models_and_hands_over_the_one_of_its_shape(monkeypatch):
    built, size = [], Size(256, 48, 3, 2)  # a size that no other test asks for
    assemble = solver.assemble
    monkeypatch.setattr(solver, "assemble", lambda *asked, **named: built.append(1) or assemble(*asked, **named))
    shape, model = solver.solved(registry.entry("gated-deltanet"), size, {})
    assert len(built) == 3  # the reference, a pair of blocks, and the model
    assert (len(model.blocks), model.blocks[0].feed.down.in_features) == (shape.depth, shape.feed)
    assert {value.device.type for value in model.parameters()} == {"meta"}
    solver.solved(registry.entry("gated-deltanet"), size, {})
    assert len(built) == 3
