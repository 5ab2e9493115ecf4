"""The state of a model after a long text is measured at constant memory: the text is fed in pieces."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, seeded
from runner.training import largest_state
from tasks.harness.evaluate import LONG, PIECE


class Growing(torch.nn.Module):
    """Its state is one float a token; it notes how many tokens it is fed at once."""

    period = 1

    def __init__(self) -> None:
        super().__init__()
        self.fed: list[int] = []

    def forward(self, tokens, state=None):
        self.fed.append(tokens.shape[1])
        seen = torch.zeros(1, tokens.shape[1]) if state is None else torch.cat([state, torch.zeros(tokens.shape)], 1)
        return torch.zeros(*tokens.shape, 2), seen


@pytest.mark.parametrize("context", [1, LONG, LONG + 1, 5 * LONG + 7])
def test_a_long_text_is_fed_in_pieces(context):
    model = Growing()
    assert largest_state(model, context, "cpu") == 4 * (context + 1)
    assert max(model.fed) <= (context if context <= LONG else PIECE)


def test_it_is_the_same_however_often_it_was_asked():
    """A record of a decoded token hands on other spare memory than the layers do, and comes with the tokens that went before."""
    model = seeded("titans-mac", Size(256, 64, 2, 4), 0, segment=16).eval()
    assert len({largest_state(model, 512, "cpu") for _ in range(4)}) == 1
