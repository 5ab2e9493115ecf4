"""Only a model that gives in pieces what it gives in one, from a state that stays small, may be streamed."""

import pytest
import torch

import baselines  # noqa: F401
from models.conformance.streaming import NotStreamable, admit
from models.language_model import Block, LanguageModel, Size, seeded
from tests.support import broken_mixers

SIZE = Size(vocab=256, width=32, depth=2, heads=2)


def with_mixer(mixer) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(SIZE, [Block(32, mixer(32, 2), 32) for _ in range(2)])


@pytest.mark.parametrize("name", ["gated-deltanet", "titans-lmm", "titans-mac", "rmt"])
def test_fixed_states_are_admitted_at_any_length(name):
    admit(seeded(name, SIZE, 0), 10_000_000)


def test_a_growing_state_is_admitted_while_it_is_small():
    model = seeded("transformer", SIZE, 0)
    admit(model, 100_000)
    with pytest.raises(NotStreamable, match="grows by .* bytes a token"):
        admit(model, 1_000_000)


@pytest.mark.parametrize("mixer", [broken_mixers.DropsState, broken_mixers.DropsStateAtPeriod])
def test_a_model_that_fails_in_pieces_is_refused(mixer):
    admit(with_mixer(broken_mixers.Sound), 1_000_000)
    with pytest.raises(NotStreamable, match="relative error"):
        admit(with_mixer(mixer), 2048)
