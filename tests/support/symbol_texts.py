"""The tasks over symbols at small sizes, and readers of their texts that share no code with them."""

from __future__ import annotations

SMALL = {
    "mqar": {"pairs": (2, 4), "length": 32, "vocab": 32, "samples": 40, "filler": "random"},
    "selective-copying": {"length": 24, "copied": 5, "vocab": 8, "samples": 40},
    "state-tracking": {"group": "s3", "length": 16, "samples": 40},
    "forgetting": {"facts": (4, 6), "overwrites": (1, 4), "distances": (0, 16), "vocab": 34, "samples": 40},
    "flip-flop": {"length": 24, "values": 4, "samples": 40},
    "overflow": {"facts": (4, 8), "ages": (1, 4, 8), "vocab": 65, "samples": 40},
    "flow": {"spans": (1, 4), "facts": 10, "vocab": 34, "samples": 40},
    "nonlinear-recall": {"sides": (4, 8), "values": 4, "vocab": 25, "samples": 40},
    "modular-arithmetic": {"length": 24, "samples": 40},
    "variable-tracking": {"chains": (5, 6), "hops": (1, 3), "length": 96, "test_lengths": (50, 96), "samples": 40},
    "common-words": {"common": 2, "often": 5, "seldom": 2, "rare": (4, 6), "vocab": 17, "samples": 40},
    "frequent-words": {"asked": 2, "length": 32, "vocab": 17, "samples": 40},
    "phone-book": {"entries": (4, 6), "digits": 3, "vocab": 35, "samples": 40},
    "mad-in-context-recall": {"length": 48, "samples": 40},
    "mad-noisy-recall": {"length": 48, "samples": 40},
    "mad-fuzzy-recall": {"length": 64, "samples": 40},
    "mad-selective-copying": {"length": 64, "samples": 40},
    "mad-compression": {"length": 16, "samples": 40},
    "mad-memorisation": {"length": 16, "samples": 40},
}


def solved(name: str, task, tokens: list[int]) -> list[int | None]:
    """The answers that follow from a text's spelling, by a reader who shares no code with the task; None: not asked."""
    words = task.spell(tokens).split()
    if name in SOLVERS:
        return SOLVERS[name](words)
    if name.endswith(("copying", "compression")):
        data = [word for word in words if word.startswith("s")]
        begin = words.index("?") + (name.startswith("mad"))
        return [None] * begin + data
    if name == "mad-memorisation":
        return [
            f"v{task.facts[int(words[i - 1][1:])] - task.values}" if w == "?" else None for i, w in enumerate(words)
        ]
    return _recalled(name, words)


def _walk(words: list[str]) -> list[str]:
    """Things change places: what lies at place i goes to place word[i]."""
    at, said = {thing: thing for thing in "123"}, []
    for word in words:
        at = {thing: word[int(place) - 1] for thing, place in at.items()}
        said.append("".join(at[thing] for thing in "123"))
    return said


def _flipped(words: list[str]) -> list[str | None]:
    """The word behind the last w, wherever an r asks."""
    return [words[len(words[:i]) - words[:i][::-1].index("w")] if w == "r" else None for i, w in enumerate(words)]


def _told(words: list[str], facts: str) -> list[str | None]:
    """What stands behind the asked key where `facts`, the words as one text, first name it."""
    said: list[str | None] = [None] * len(words)
    for place, word in enumerate(words):
        if words[max(0, place - 1)] == "?":
            said[place] = facts.split(f" {word} ")[1].split()[0]
    return said


def _streamed(words: list[str]) -> list[str | None]:
    return _told(words, " " + " ".join(words))


def _announced(words: list[str]) -> list[str | None]:
    return _told(words, " ".join(words).split("!")[1])


def _looked_up(words: list[str]) -> list[str | None]:
    """What stood behind the same two words at the beginning."""
    text = " " + " ".join(words)
    asked = [place > 1 and words[place - 2] == "?" for place in range(len(words))]
    return [
        text.split(f" {words[place - 1]} {words[place]} ")[1].split()[0] if asks else None
        for place, asks in enumerate(asked)
    ]


def _calculated(words: list[str]) -> list[str | None]:
    """Python's own value of each bracket that closes, and of all before the equals sign, where the last one is asked."""
    said: list[str | None] = [None] * len(words)
    opened = []
    for place, word in enumerate(words):
        if word == "(":
            opened.append(place)
        if word == ")":
            said[place] = str(eval("".join(words[opened.pop() : place + 1])) % 5)
    said[-1], said[-2] = said[-2], None
    return said


def _traced(words: list[str]) -> list[str | None]:
    """What each variable holds once its statement is read; said where a question mark asks."""
    said: list[str | None] = [None] * len(words)
    holds: dict[str, str] = {}
    left = [word for word in words[: words.index("?")] if word != "."]
    for name, given in zip(left[::2], left[1::2], strict=True):
        holds[name] = holds.get(given, given)
    for place in range(1, len(words)):
        if words[place - 1] == "?":
            said[place] = holds[words[place]]
    return said


def _common(words: list[str]) -> list[str | None]:
    """The words of the list that fill more than their share of it."""
    end = words.index("?")
    listed = words[:end]
    often = [word for word in dict.fromkeys(listed) if listed.count(word) > end / len(set(listed))]
    return [None] * end + often


def _frequent(words: list[str]) -> list[str | None]:
    end = words.index("?")
    listed = words[:end]
    return [None] * end + sorted(set(listed), key=listed.count)[: -1 - (len(words) - end) : -1]


def _dialled(words: list[str]) -> list[str | None]:
    """The book as text: what stands behind both halves of the name."""
    said: list[str | None] = [None] * len(words)
    book, _, _ = " ".join(words).partition(" ?")
    for place, word in enumerate(words):
        if word == "?":
            number = book.split(f"{words[place + 1]} {words[place + 2]} ")[1].split()
            number = number[: next((i for i, digit in enumerate(number) if not digit.isdigit()), len(number))]
            said[place + 2 : place + 2 + len(number)] = number
    return said


SOLVERS = {
    "variable-tracking": _traced,
    "common-words": _common,
    "frequent-words": _frequent,
    "phone-book": _dialled,
    "state-tracking": _walk,
    "flip-flop": _flipped,
    "overflow": _streamed,
    "flow": _announced,
    "nonlinear-recall": _looked_up,
    "modular-arithmetic": _calculated,
}


def _recalled(name: str, words: list[str]) -> list[str | None]:
    """What stood behind the key before: in forgetting the latest value, and only where a question mark asks."""
    said, held = [None] * len(words), {}
    for place, key, value in _pairs(words, joined=name == "mad-fuzzy-recall"):
        question = place > 0 and words[place - len(key)] == "?"
        if key in held and (name != "forgetting" or question):
            said[place : place + len(held[key])] = held[key]
        if value and (name == "forgetting" or key not in held):
            held[key] = value
    return said


def _pairs(words: list[str], joined: bool):
    """(place of the key's last word, key, value): neighbouring words of a kind make one key, one value, if `joined`."""
    place = 0
    while place < len(words):
        begin = place
        while place < len(words) and words[place][0] == "k" and (joined or place == begin):
            place += 1
        middle = place
        while place < len(words) and words[place][0] == "v" and (joined or place == middle):
            place += 1
        if middle > begin:
            yield middle - 1, tuple(words[begin:middle]), words[middle:place]
        place = max(place, begin + 1)
