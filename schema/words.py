"""Words for messages: a value cut to a readable length, and the known name that a misspelt one probably means."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import Any

LONGEST = 80  # characters of a value that a message repeats
LONGEST_LINE = (
    1_500  # characters of a whole sentence; the longest of ours, with a model's whole signature, has about 1,000
)
LONGEST_FAULT = 300  # characters of somebody else's exception that a message repeats


def shortened(value: Any, longest: int = LONGEST) -> str:
    """`value` as Python writes it, on one line, cut in the middle where it is longer than `longest` characters.

    >>> shortened("a" * 100, 20)
    "'aaaaaaaa...aaaaaaa'"
    """
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # a whole number of more digits than Python prints; nested beyond its stack
        text = f"a {type(value).__name__} too large to print"
    if len(text) <= longest:
        return text
    head = (longest - 2) // 2
    return f"{text[:head]}...{text[-(longest - 3 - head) :]}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """ " (did you mean mamba2?)" for the known name that is nearest to `word`, "" where none is near.

    >>> suggestion("mamab2", ["mamba2", "retnet"])
    ' (did you mean mamba2?)'
    """
    close = difflib.get_close_matches(word[:200], list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def fault(error: BaseException, longest: int = LONGEST_FAULT) -> str:
    """An exception that other people's code raised: its type and message on one line, cut in the middle.

    >>> fault(ValueError("line one\nline two"))
    'ValueError: line one line two'
    """
    text = message(error, longest)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def message(error: BaseException, longest: int = LONGEST_FAULT) -> str:
    """An exception's message on one line, cut in the middle; "" where it has none, or none that can be had."""
    try:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException:  # its own __str__ may raise anything, sys.exit too
        return ""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if len(text) <= longest:
        return text
    head = (longest - 2) // 2
    return f"{text[:head]}...{text[-(longest - 3 - head) :]}"


def several(count: int, noun: str) -> str:
    """So many of what the noun names.

    >>> several(1, "model"), several(1_000, "model")
    ('1 model', '1,000 models')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """The text on one line, cut in the middle where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= longest else shortened(text, longest)[1:-1]


def warn_in_one_line() -> None:
    """Print this process's warnings as sentences, without the line of code that gave them."""
    warnings.formatwarning = lambda message, *_: f"bench.py: {one_line(str(message))}\n"
