"""Tokens: they give the text back, and the encoded documents are those of the split."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.text.corpus import documents
from tasks.text.tokenizer import BYTES, encoded


def test_every_text_comes_back_from_its_bytes():
    text = "Käse, 北京, \x00\n\N{GRINNING FACE}"
    tokens = BYTES.encode(text)
    assert tokens.tolist() == list(text.encode("utf-8"))
    assert BYTES.decode(tokens) == BYTES.decode(tokens.tolist()) == text
    assert int(tokens.max()) < BYTES.vocab == 256


def test_bytes_that_are_no_text_are_shown_and_not_refused():
    assert BYTES.decode([72, 255, 105]) == "H\ufffdi"


def test_a_split_is_encoded_once_and_cannot_be_written_to():
    (book,) = encoded("test")
    assert BYTES.decode(book) == documents("test")[0].text
    assert np.shares_memory(encoded("test")[0], book)
    with pytest.raises(ValueError):
        book[0] = 0
