"""Many lines of text as one artist, each with an anchor of its own: one text of matplotlib's takes twenty times as long."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.transforms import Bbox, IdentityTransform, Transform

from results.report.figures.formats import letters
from results.report.figures.style import INK

CAPITAL, ASCENT, DESCENT = 0.73, 0.76, 0.24  # of a size: a capital's height, and what a line takes above and below
SPACING = 1.2  # from line to line, of a size
POINTS = 72  # an inch
ALONG = {"left": 0.0, "center": -0.5, "right": -1.0}


class Word(NamedTuple):
    """A text, where it is anchored, and how it looks; `dx` and `dy` are points from the anchor, `angle` turns around it."""

    text: str
    x: float
    y: float
    size: float = 7.5
    colour: Any = INK
    weight: str = "normal"
    ha: str = "center"
    va: str = "center"
    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0


class Placed(NamedTuple):
    """A line of text in pixels from the lower left: where its baseline begins, and what it measures."""

    word: Word
    text: str
    x: float
    y: float
    width: float
    height: float
    descent: float

    @property
    def box(self) -> Bbox:
        """The upright box around it."""
        turn = math.radians(self.word.angle)
        cos, sin = math.cos(turn), math.sin(turn)
        ends = [(u, v) for u in (0.0, self.width) for v in (-self.descent, self.height - self.descent)]
        xs, ys = zip(*((self.x + u * cos - v * sin, self.y + u * sin + v * cos) for u, v in ends), strict=True)
        return Bbox([(min(xs), min(ys)), (max(xs), max(ys))])


class Words(Artist):
    """Texts at places of a transform; a panel's layout leaves room for them unless they are told not to be in it."""

    def __init__(self, words: Sequence[Word], transform: Transform | None = None) -> None:
        super().__init__()
        self.words = list(words)
        self.set_transform(transform or IdentityTransform())
        self.set_zorder(4)

    def placed(self) -> list[Placed]:
        """Every line of text in its place."""
        if not self.words:
            return []
        places = self.get_transform().transform(np.array([(word.x, word.y) for word in self.words], dtype=float))
        drawn = self.get_figure()
        return [line for word, place in zip(self.words, places, strict=True) for line in _lines(word, place, drawn)]

    def get_window_extent(self, renderer: Any = None) -> Bbox:
        """The box around them all."""
        boxes = [line.box for line in self.placed()]
        return Bbox.union(boxes) if boxes else Bbox.null()

    def draw(self, renderer: Any) -> None:
        """Draw them; of one colour with one pen."""
        if not self.get_visible():
            return
        pens: dict[Any, Any] = {}
        high = renderer.get_canvas_width_height()[1] if renderer.flipy() else None
        for line in self.placed():
            word = line.word
            if word.colour not in pens:
                pens[word.colour] = renderer.new_gc()
                pens[word.colour].set_foreground(word.colour)
            y = line.y if high is None else high - line.y
            renderer.draw_text(pens[word.colour], line.x, y, line.text, font(word.size, word.weight), word.angle)


def font(size: float, weight: str) -> FontProperties:
    """The font of texts of a size and weight, under the present settings."""
    return _font(size, weight, tuple(matplotlib.rcParams["font.family"]))


@functools.lru_cache(maxsize=256)
def _font(size: float, weight: str, family: tuple[str, ...]) -> FontProperties:
    return FontProperties(family=list(family), size=size, weight=weight)


def width(text: str, size: float, weight: str = "normal") -> float:
    """Inches across a line of text."""
    return _measured(text, size, weight, POINTS)[0] / POINTS


def wrapped(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """A text in lines that are at most so wide, broken between words; lines that it has already stay apart."""
    return "\n".join(line for part in text.split("\n") for line in _broken(part, inches, size, weight))


def _broken(text: str, inches: float, size: float, weight: str) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", size, weight) <= inches:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _measured(text: str, size: float, weight: str, dots: float) -> tuple[float, float, float]:
    found = letters.measured(text, font(size, weight), dots)
    if found is None:  # a letter that the report's font lacks
        found = RendererAgg(1, 1, dots).get_text_width_height_descent(text, font(size, weight), False)
    return found


def _lines(word: Word, place: np.ndarray, drawn: Any) -> Iterator[Placed]:
    unit, texts = drawn.dpi / POINTS, word.text.split("\n")
    size, turn, below = word.size * unit, math.radians(word.angle), len(texts) - 1
    cos, sin = math.cos(turn), math.sin(turn)
    up = {
        "center": SPACING / 2 * below - CAPITAL / 2,
        "top": -ASCENT,
        "bottom": DESCENT + SPACING * below,
        "baseline": SPACING * below,
    }[word.va]
    for number, text in enumerate(texts):
        measures = _measured(text, word.size, word.weight, drawn.dpi) if text else (0.0, 0.0, 0.0)
        u, v = ALONG[word.ha] * measures[0], (up - SPACING * number) * size
        x, y = place[0] + word.dx * unit + u * cos - v * sin, place[1] + word.dy * unit + u * sin + v * cos
        if text:
            yield Placed(word, text, float(x), float(y), *measures)
