"""Where a needle may lie: between words, sentences or lines, and between characters where a script parts no words."""

from __future__ import annotations

import re
from functools import lru_cache

LONGEST_WORD = 64  # bytes; what is longer between two blanks is no word of a script that parts words
LONGEST_OTHER = 16  # characters of such a word that is not plain ASCII
FEWEST_BLANKS = 20  # a text with fewer than one blank in so many characters parts no words
SENTENCES = 40  # as many as RULER has depths; a text without blanks and with fewer is parted between characters
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
OTHER_END = re.compile(r"(?<=[。！？．｡।॥۔؟།။៕])\s*")


def word_gap(filler: bytes, depth: float) -> int:
    """The last place up to `depth` where a word begins; where no blank parts words, a character."""
    place = int(len(filler) * depth)
    if place == len(filler):
        return place
    begin = filler.rfind(b" ", 0, place) + 1
    end = filler.find(b" ", place) % (len(filler) + 1)  # the end of the text where no blank follows
    word = filler[begin:end]
    longest = LONGEST_WORD if word.isascii() else LONGEST_OTHER
    alone = len(word) == len(filler) and not word.isascii()
    if len(word.decode("utf-8", "ignore")) <= longest and not alone:
        return begin
    while place > begin and filler[place] & 0xC0 == 0x80:  # within a character
        place -= 1
    return place


def sentence_starts(text: str, splitter: str) -> list[int]:
    """Where the sentences of a text begin that `splitter` (`own` or `punkt`) sees, the first at 0.

    In a script without blanks its own full stops part sentences; where these are few, every character is one.
    """
    if text.count(" ") * FEWEST_BLANKS < len(text):
        starts = [0, *(match.end() for match in OTHER_END.finditer(text) if match.end() < len(text))]
        return starts if len(starts) >= SENTENCES else list(range(len(text)))
    if splitter == "punkt":
        starts = [begin for begin, _ in _punkt().span_tokenize(text)]
        return [0, *starts[1:]] if starts else [0]
    return [0, *(match.end() for match in SENTENCE_END.finditer(text))]


def splitter() -> str:
    """What parts prose into sentences: nltk's punkt, as in RULER, where it is installed with its data, else `own`."""
    return "punkt" if _punkt() is not None else "own"


@lru_cache(maxsize=1)
def _punkt():
    """nltk's English sentence tokenizer, None where it or its data is not here; nothing is downloaded."""
    try:
        from nltk.tokenize import PunktTokenizer

        return PunktTokenizer("english")
    except (ImportError, LookupError):
        return None
