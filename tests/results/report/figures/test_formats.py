"""One drawing for three formats: what they show is what matplotlib shows where it draws a figure for each."""

from __future__ import annotations

import re
import zlib
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.textpath import TextToPath
from PIL import Image

from results.report.figures import artists, canvas, style
from results.report.figures.formats import fonts, letters
from results.report.figures.formats.files import formats
from results.report.figures.words import Word, Words, font

UNLIKE = 1.0  # of 255, the mean over all pixels: letters are filled by another hand


def made():
    """A figure with all that ours have, laid out."""
    drawn = canvas.figure(2.0)
    first, second = (canvas.framed(panel) for panel in drawn.subplots(1, 2))
    look = {"color": "#204080", "marker": "o", "linestyle": (0, (2, 1)), "linewidth": 1.0, "zorder": 2}
    faint = {"color": style.FAINT, "marker": "s", "linestyle": "-", "linewidth": 0.8, "zorder": 1.7}
    artists.lines(first, [([1, 2, 3], [1, 3, 2], look), ([1, 2, 3], [3, 1, 2], faint)])
    artists.bands(first, [artists.Band([1, 2], [1, 1], [2, 3], "#204080")])
    turned, bold = Word("AVo", 2, 2, 20, angle=30), Word("two\nlines", 2, 1, 9, "#a00000", "bold")
    first.add_artist(Words([turned, bold], first.transData))
    second.imshow([[0.0, 1.0], [1.0, 0.5]], interpolation="nearest")
    drawn.get_layout_engine().execute(drawn)
    drawn.set_layout_engine("none")
    return drawn


def test_a_figure_is_what_matplotlib_draws_for_each_format():
    with style.settings(["a"]):
        drawn = made()
        ours, png, svg = formats(drawn, canvas.METADATA), BytesIO(), BytesIO()
        FigureCanvasAgg(drawn).print_png(png)
        FigureCanvasSVG(drawn).print_svg(svg, metadata=canvas.METADATA["svg"])
    mine, theirs = (np.asarray(Image.open(BytesIO(one)).convert("RGB"), float) for one in (ours["png"], png.getvalue()))
    assert mine.shape == theirs.shape and len(np.unique(mine)) > 2
    assert np.abs(mine - theirs).mean() < UNLIKE < np.abs(mine - 255).mean()
    assert Image.open(BytesIO(ours["png"])).info["dpi"] == pytest.approx((canvas.DOTS, canvas.DOTS), abs=0.1)
    for kind in (b"<path ", b"<image "):  # matplotlib's has a path for each letter too
        assert ours["svg"].count(kind) == svg.getvalue().count(kind) > 0
    ElementTree.fromstring(ours["svg"])
    assert b'aria-label="AVo"' in ours["svg"] and b"rotate(-30)" in ours["svg"]
    assert ours["pdf"].startswith(b"%PDF") and ours["pdf"].rstrip().endswith(b"%%EOF")


def test_a_pdf_holds_its_fonts_and_its_texts_as_text():
    with style.settings(["a"]):
        content = formats(made(), canvas.METADATA)["pdf"]
        streams = [zlib.decompress(one) for one in re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL)]
        shown = letters.of("AVo", font(20, "normal")).glyphs
    assert content.count(b"/FontFile2") == 2 and b"/Type3" not in content
    page, tables = next(one for one in streams if b"BT" in one), [one for one in streams if b"beginbfchar" in one]
    (kerned,) = re.findall(rb"/Report-normal 20 Tf [^\n]*?\[(.*?)\] TJ", page)
    assert re.findall(rb"[0-9a-f]{4}", kerned) == [b"%04x" % one.number for one in shown]
    assert re.search(rb"> \d+ <", kerned)  # an A and a V stand nearer than letters do
    assert all(
        b"<%04x> <%04x>" % (one.number, ord(letter)) in tables[1] for one, letter in zip(shown, "AVo", strict=True)
    )


def test_letters_are_where_matplotlib_puts_them():
    with style.settings(["a"]):
        prop = font(8.0, "bold")
        for words in ("Titans (MAC), 95 %", "AVAToWa", "µ±×"):
            line, (corners, _) = letters.of(words, prop), TextToPath().get_text_path(prop, words)
            assert np.allclose(line.outline.vertices, corners, atol=0.02)
        assert letters.of("Ж", prop) is None


def test_letters_need_no_open_file_which_processes_would_share(tmp_path, monkeypatch):
    copies = {weight: tmp_path / weight for weight in fonts.FILES}
    for weight, file in fonts.files().items():
        copies[weight].write_bytes(file.read_bytes())
    known = letters.glyph("normal", "q").advance
    monkeypatch.setattr(fonts, "files", lambda: copies)
    for cached in (letters._font, letters.glyph):
        cached.cache_clear()
    letters.glyph("normal", "a")
    copies["normal"].write_bytes(b"")
    assert letters.glyph("normal", "q").advance == known
    letters._font.cache_clear()


def test_a_letter_that_the_small_font_lacks_is_drawn_from_the_whole_one():
    with style.settings():
        found, none = formats_of("Жб"), formats_of(" ")
    assert b"DejaVuSans-" in found["svg"]
    assert b"DejaVuSans" in found["pdf"] and b"DejaVuSans" not in none["pdf"]
    assert np.asarray(Image.open(BytesIO(found["png"]))).min() < 255


def formats_of(words: str) -> dict[str, bytes]:
    """A figure of one text, one letter of which is none of the small font's."""
    drawn = canvas.figure(1.0)
    panel = drawn.add_axes((0, 0, 1, 1))
    panel.add_artist(Words([Word(words, 0.5, 0.5)], panel.transAxes))
    return formats(drawn, canvas.METADATA)
