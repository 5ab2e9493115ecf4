"""Griffin, Samba: the pattern of each, what its settings reach, and what is matched."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance import costs
from models.language_model import Match, Size, build
from schema.terms import state_tolerance

SIZE = Size(64, 32, 4, 2)
PATTERNS = {
    "griffin": ["Hawk", "Hawk", "LocalAttention", "Hawk"],
    "samba": ["Mamba", "WindowTransformer", "Mamba", "WindowTransformer"],
}


@pytest.mark.parametrize("name", PATTERNS)
def test_layers_are_those_of_the_paper_and_each_mixes_channels_afterwards(name):
    model = build(name, SIZE)
    assert [type(block.mixer).__name__ for block in model.blocks] == PATTERNS[name]
    assert len({block.feed.down.in_features for block in model.blocks}) == 1
    assert model.fixed_state and registry.entry(name).says("fixed_state", {})


@pytest.mark.parametrize("name", PATTERNS)
def test_settings_reach_the_layers(name):
    model = build(name, SIZE, window=7, inner=48, provider="recurrence")
    first, attention = model.blocks[0].mixer, next(b.mixer for b in model.blocks if hasattr(b.mixer, "window"))
    assert (attention.window, first.out.in_features, first.provider) == (7, 48, "recurrence")


@pytest.mark.parametrize("name", PATTERNS)
def test_state_is_matched_by_the_window(name):
    found = costs.match_report(name, SIZE, Match("state", state_bytes=30_000))
    assert found.figure == pytest.approx(30_000, rel=state_tolerance(30_000))
    assert found.parameters == pytest.approx(found.reference_parameters, rel=0.05)


def test_griffins_outputs_are_drawn_for_the_whole_models_depth():
    torch.manual_seed(0)
    model = build("griffin", Size(16, 256, 6, 4), match=False)
    for block in model.blocks:
        weight = block.mixer.out.weight
        assert weight.var().item() == pytest.approx(2 / (6 * weight.shape[1]), rel=0.05)


def test_griffin_needs_three_layers():
    with pytest.raises(ValueError, match=r"3 layers \(hawk, hawk, local-attention\) do not fit into a depth of 2"):
        build("griffin", Size(64, 32, 2, 2))


def test_xlstm_has_one_slstm_block_to_every_so_many_of_mlstm():
    model = build("xlstm", SIZE, mlstm_blocks=2, inner=48, match=False)
    assert [type(block.mixer).__name__ for block in model.blocks] == ["MLSTM", "MLSTM", "SLSTM", "MLSTM"]
    assert all(block.feed is None and block.mixer_norm is None for block in model.blocks)
    assert registry.entry("xlstm").says("least_depth", {"mlstm_blocks": 7}) == 8
    with pytest.raises(ValueError, match="mlstm_blocks must be at least 1, not 0"):
        build("xlstm", SIZE, mlstm_blocks=0, match=False)
