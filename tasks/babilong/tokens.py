"""BABILong's texts in tokens as they stand within a text, wherever a tokenizer would write them otherwise at its beginning."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tasks.text.tokenizer import Tokenizer

SENTENCE = "It is so."  # what a text stands after, where its tokens are asked for
END = "\n"  # closes every answer
GPT2_BYTES = 4.3  # bytes of English to a token of GPT-2, in which BABILong counts


def after(tokenizer: Tokenizer, before: str, text: str) -> np.ndarray | None:
    """The tokens of `text` where it follows `before`; None where a token of the whole reaches over the border."""
    first, whole = tokenizer.encode(before), tokenizer.encode(before + text)
    return whole[len(first) :] if np.array_equal(whole[: len(first)], first) else None


@lru_cache(maxsize=16384)
def within(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The tokens of a text that follows a sentence, without what some tokenizers put before all they encode."""
    found = after(tokenizer, SENTENCE, text) if text else None
    return tokenizer.encode(text) if found is None else found


@lru_cache(maxsize=16384)
def answered(tokenizer: Tokenizer, asked: str, said: str) -> np.ndarray:
    """The tokens of what is said to a question, and of the line break that closes it, which is always one token, the last.

    Raises ValueError where the tokenizer joins the two: the answer would have no tokens of its own.
    """
    found = after(tokenizer, SENTENCE + asked, said)
    if found is None:
        raise ValueError(
            f"The tokenizer '{tokenizer.name}' joins the end of BABILong's question and the answer '{said.strip()}' to one "
            "token: choose another, such as gpt2 or bpe:4096."
        )
    return np.append(found, tokenizer.encode(END)[-1])


def as_many(tokenizer: Tokenizer, text: str, count: int) -> int:
    """How many of the tokenizer's tokens say as much as `count` of GPT-2's, judged by a text; at least as many."""
    return max(count, round(count * GPT2_BYTES * len(tokenizer.encode(text)) / max(1, len(text.encode()))))
