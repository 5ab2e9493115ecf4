"""The language model around mixers: what its shell refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.shell.model import Block, LanguageModel, Size


def test_no_blocks_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="needs at least one block"):
        LanguageModel(Size(16, 8, 1, 2), [])


class Narrow(nn.Module):
    """A mixer with one channel, which a sum would spread over all of them."""

    def forward(self, x, state=None):
        return x[..., :1], ()


def test_a_mixer_of_another_shape_is_refused_in_one_sentence():
    model = LanguageModel(Size(16, 8, 1, 2), [Block(8, Narrow(), 0)])
    with pytest.raises(
        ValueError, match=r"Narrow made \[2, 5, 1\] of \[2, 5, 8\]: a mixer returns y of its input's shape"
    ):
        model(torch.zeros(2, 5, dtype=torch.long))
