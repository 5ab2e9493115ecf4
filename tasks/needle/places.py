"""Where a needle may lie: between words, sentences or lines, and between characters where a script parts no words."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

LONGEST_WORD = 64  # bytes; what is longer between two blanks is no word of a script that parts words
LONGEST_OTHER = 16  # characters of such a word that is not plain ASCII
FEWEST_BLANKS = 20  # a text with fewer than one blank in so many characters parts no words
SENTENCES = 40  # as many as RULER has depths; a text without blanks and with fewer is parted between characters
LONGEST_SENTENCE = 1500  # characters; of what is longer and a quarter of the text, the marks are missing
SHORT = 400  # characters that may well be one sentence
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
OTHER_END = re.compile(r"(?<=[。！？．｡।॥۔؟།။៕])\s*")


def word_gap(filler: bytes, depth: float) -> int:
    """The last place up to `depth` where a word begins; where no blank parts words, a character."""
    place = int(len(filler) * depth)
    if place == len(filler):
        return place
    begin = filler.rfind(b" ", 0, place) + 1
    end = filler.find(b" ", place) % (len(filler) + 1)  # the end of the text where no blank follows
    if end - begin <= LONGEST_OTHER and end - begin < len(filler):
        return begin
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

    In a script without blanks its own full stops part sentences. Where marks are missing, so that one sentence is most of
    the text, words take their place, and characters where there are no words either.
    """
    if text.count(" ") * FEWEST_BLANKS < len(text):
        ends = (match.end() for match in OTHER_END.finditer(text))
        starts = [0, *(end for end in ends if end < len(text))]
        return starts if len(starts) >= SENTENCES else list(range(max(1, len(text))))
    if splitter == "punkt":
        starts = [0, *(begin for begin, _ in _punkt().span_tokenize(text) if begin)]
    else:
        starts = [0, *(match.end() for match in SENTENCE_END.finditer(text) if match.end() < len(text))]
    longest = max(end - begin for begin, end in pairwise([*starts, len(text)]))
    if longest <= max(LONGEST_SENTENCE, len(text) // 4) and (len(starts) > 1 or len(text) <= SHORT):
        return starts
    words = [0, *(match.end() for match in re.finditer(" ", text) if match.end() < len(text))]
    return words if len(words) >= SENTENCES else list(range(max(1, len(text))))


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
