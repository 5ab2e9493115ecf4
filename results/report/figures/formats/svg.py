"""SVG whose texts are the letters' curves, each letter written once in a file and used wherever it stands."""

from __future__ import annotations

import functools
from io import StringIO
from typing import Any
from xml.sax.saxutils import quoteattr

from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.colors import to_hex
from matplotlib.path import Path

from results.report.figures.formats.letters import EM, Line, glyph

CODES = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "z"}


class Svg(RendererSVG):
    """Matplotlib's renderer of SVG, with texts of our own."""

    def __init__(self, wide: float, high: float, dots: float, metadata: dict[str, None]) -> None:
        self.stream = StringIO()
        self.known: set[str] = set()
        super().__init__(wide, high, self.stream, image_dpi=dots, metadata=metadata)

    def draw_line(self, gc: Any, x: float, y: float, line: Line, size: float, angle: float) -> None:
        """A line of text that begins at x and stands on y, both in points, y downwards."""
        self.writer.flush()
        body, names = _body(line)
        for name in names:
            if name not in self.known:
                self.known.add(name)
                self.stream.write(f"<defs>{_outline(line.weight, name)}</defs>\n")
        turned = f" rotate({-angle:g})" if angle else ""
        place = f"translate({x:.3f} {y:.3f}){turned} scale({size / EM:g} {-size / EM:g})"
        label, colour = quoteattr(line.letters), to_hex(gc.get_rgb())
        self.stream.write(f'<g role="img" aria-label={label} fill="{colour}" transform="{place}">{body}</g>\n')


def _name(weight: str, letter: str) -> str:
    return f"{weight}-{ord(letter):x}"


@functools.lru_cache(maxsize=1 << 14)
def _body(line: Line) -> tuple[str, tuple[str, ...]]:
    """A line's letters in their places, and what they are called."""
    names = [_name(line.weight, letter) for letter in line.letters]
    used = [
        f'<use x="{x:.4g}" xlink:href="#{name}"/>'
        for x, name, letter in zip(line.starts, names, line.letters, strict=True)
        if letter != " "
    ]
    return "".join(used), tuple(dict.fromkeys(names))


@functools.cache
def _outline(weight: str, name: str) -> str:
    """The curves of a letter."""
    parts = [
        CODES[code] + " ".join(f"{value:.5g}" for value in (corners if code != Path.CLOSEPOLY else ()))
        for corners, code in glyph(weight, chr(int(name.split("-")[1], 16))).outline.iter_segments(simplify=False)
    ]
    return f'<path id="{name}" d="{"".join(parts)}"/>'
