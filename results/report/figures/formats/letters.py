"""Lines of text as the formats draw them: measured and turned into curves once, however often and wherever they stand."""

from __future__ import annotations

import functools
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ft2font
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path

from results.report.figures.formats import fonts

EM = 100.0  # points of the size in which a line is measured; what is drawn is scaled from it
FIXED = 64  # what FreeType counts a point in
PLAIN = (
    ft2font.LoadFlags if hasattr(ft2font, "LoadFlags") else ft2font
).NO_HINTING  # letters keep their form at all sizes


class Glyph(NamedTuple):
    """A letter: its number in the font, how far it moves on, and its outline, in points at a size of EM."""

    number: int
    advance: float
    outline: Path


class Line(NamedTuple):
    """A line of text in one of the report's fonts, in points at a size of EM."""

    weight: str
    width: float
    height: float
    descent: float
    letters: str
    starts: tuple[float, ...]  # of its letters, kerned
    outline: Path

    @property
    def glyphs(self) -> list[Glyph]:
        """Its letters as the font has them."""
        return [glyph(self.weight, letter) for letter in self.letters]


def of(words: str, prop: FontProperties) -> Line | None:
    """A line of text, or None where a letter or the font itself is none of the report's."""
    if prop.get_family()[:1] != [fonts.NAME] or prop.get_style() != "normal":
        return None
    return _line(words, "bold" if prop.get_weight() in ("bold", 700) else "normal")


def measured(words: str, prop: FontProperties, dots: float) -> tuple[float, float, float] | None:
    """Width, height and descent of a line of text in pixels, so many an inch; None where a letter is none of the report's."""
    line, scale = of(words, prop), prop.get_size_in_points() / EM * dots / 72
    return line and (scale * line.width, scale * line.height, scale * line.descent)


@functools.lru_cache(maxsize=1 << 14)
def _line(words: str, weight: str) -> Line | None:
    font = _font(weight)
    if not words or not all(font.get_char_index(ord(letter)) for letter in words):
        return None
    starts = font.set_text(words, 0.0, flags=PLAIN)[:, 0] / FIXED
    (width, height), descent = font.get_width_height(), font.get_descent()
    outlines = [glyph(weight, letter).outline for letter in words]
    corners = np.concatenate([one.vertices + (x, 0.0) for one, x in zip(outlines, starts, strict=True)])
    outline = Path(corners, np.concatenate([one.codes for one in outlines]))
    measured = width / FIXED, height / FIXED, descent / FIXED
    return Line(weight, *measured, words, tuple(starts.tolist()), outline)


@functools.cache
def glyph(weight: str, letter: str) -> Glyph:
    """A letter of the report's font."""
    font = _font(weight)
    loaded = font.load_char(ord(letter), flags=PLAIN)
    corners, codes = font.get_path()
    outline = Path(np.reshape(corners, (-1, 2)), np.asarray(codes, dtype=Path.code_type))
    return Glyph(font.get_char_index(ord(letter)), loaded.horiAdvance / FIXED, outline)


@functools.cache
def _font(weight: str) -> Any:
    content = BytesIO(fonts.files()[weight].read_bytes())  # of an open file, processes would share the place of reading
    font = ft2font.FT2Font(content)
    font.set_size(EM, 72)
    return font
