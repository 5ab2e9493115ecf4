"""How a text is set in LaTeX, and how wide it comes out in Computer Modern, so that tables fit before any TeX sees them."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "✓": r"$\surd$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "°": r"$^\circ$", "…": r"\ldots{}", "–": "--",
}  # fmt: skip
BREAKS = re.compile(r"(?<=[-_=/+,.:;)])(?=\w)")  # where a word of LONG letters may go on in the next line
LONG = 20
UNBROKEN = 75.0  # points that a piece of a long word may take

KNOWN = {chr(code) for code in range(0x20, 0x7F)} | set("ßæøœÆØŒ§£")
ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"

# Letters of Computer Modern grow wider, against their size, the smaller they are; \settowidth says by how much.
STRETCH = {(10, ""): 1.0, (8, ""): 1.0625, (8, "bold"): 1.23, (8, "italic"): 1.11, (7, ""): 1.14, (6, ""): 1.239}
AS_ASCII = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!'()*+,-./:;=?@[]&%$#"
SYMBOLS = {" ": 0.3334, "±": 0.7778, "−": 0.7778, "×": 0.7778, "↑": 0.5, "↓": 0.5, "°": 0.45, "–": 0.5}
OTHER = 0.9  # of the size, for a letter whose width is not known: most are narrower


def escape(text: str, breakable: bool = False) -> str:
    """Text with what LaTeX would read as a command made plain; `breakable` lets long words go on in the next line.

    Letters that pdfLaTeX does not know by itself are told by their number.
    """
    if not breakable:
        return "".join(map(_letter, text))
    return " ".join(escape(word) if len(word) < LONG else _pieces(word) for word in text.split(" "))


def _pieces(word: str) -> str:
    """A long word that TeX may break behind its hyphens and the like, and anywhere in what has none of these for long."""
    found: list[str] = []
    for piece in BREAKS.split(word):
        step = len(piece) if width(piece) <= UNBROKEN else 8
        found += [piece[i : i + step] for i in range(0, len(piece), step)]
    return r"\allowbreak{}".join(map(escape, found))


@cache
def _letter(letter: str) -> str:
    if letter in SPECIAL:
        return SPECIAL[letter]
    base, *marks = unicodedata.normalize("NFD", letter)
    is_known = base in KNOWN and len(marks) <= 1 and all(mark in ACCENTS for mark in marks)
    return letter if is_known else f"(U+{ord(letter):04X})"


def width(text: str, size: int = 8, style: str = "") -> float:
    """Points that one line of plain text takes in Computer Modern at a size and style of STRETCH, without kerning."""
    return size * STRETCH[size, style] * sum(map(_em, text))


def lines(text: str, room: float, size: int = 8) -> list[str]:
    """The words of a text in lines of at most `room` points, or of its longest word where that is wider."""
    words = text.split()
    room = max([room, *(width(word, size) for word in words)])
    found: list[str] = []
    for word in words:
        if found and width(f"{found[-1]} {word}", size) <= room:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found or [""]


def widest(texts: list[str], size: int = 8) -> float:
    """The width of the widest text; 0 for none."""
    return max((width(text, size) for text in texts), default=0.0)


@cache
def _em(letter: str) -> float:
    """The width of a letter as it is set, in parts of its size."""
    plain = letter if letter in SPECIAL else _letter(letter)
    return sum(SYMBOLS.get(one) or _metrics().get(one, OTHER) for one in plain)


@cache
def _metrics() -> dict[str, float]:
    """The widths of Computer Modern Roman's letters, in parts of its size, from the metrics that matplotlib brings."""
    from matplotlib import get_data_path

    text = (Path(get_data_path()) / "fonts" / "afm" / "cmr10.afm").read_text(encoding="ascii")
    found = {chr(int(code)): float(wide) / 1000 for code, wide in re.findall(r"^C (\d+) ; WX ([\d.]+)", text, re.M)}
    return {letter: wide for letter, wide in found.items() if letter in AS_ASCII}
