"""The language model around mixers: what its shell refuses."""

from __future__ import annotations

import pytest

from models.shell.model import LanguageModel, Size


def test_no_blocks_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="needs at least one block"):
        LanguageModel(Size(16, 8, 1, 2), [])
