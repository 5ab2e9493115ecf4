"""Where a text's characters lie in its UTF-8, and where its words end."""

from __future__ import annotations

import re

import numpy as np

SPACES = re.compile(r"\s+")


def word_ends(text: str, token_ends: np.ndarray) -> np.ndarray:
    """How many words end in each token [time], given the byte before which each token ends.

    They sum to `len(re.split(r"\\s+", text))`: this is how lm-evaluation-harness counts words, as the pieces between runs
    of white space, empty ones at either end of the text included.
    """
    places = byte_places(text)
    ends = [places[match.start()] for match in SPACES.finditer(text)] + [places[-1] - 1]
    return np.bincount(np.searchsorted(token_ends, ends, side="right"), minlength=len(token_ends))


def byte_places(text: str) -> np.ndarray:
    """Where in the text's UTF-8 each character begins, and where the last one ends, [characters + 1]."""
    letters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return np.concatenate(([0], np.cumsum(1 + (letters > 0x7F) + (letters > 0x7FF) + (letters > 0xFFFF))))
