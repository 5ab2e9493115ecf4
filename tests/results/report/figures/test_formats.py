"""One drawing for three formats: what they show is what matplotlib shows where it draws a figure for each."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from PIL import Image

from results.report.figures import artists, canvas, style
from results.report.figures.formats import formats


def test_a_figure_is_what_matplotlib_draws_for_each_format():
    with style.settings(["a"]):
        drawn = canvas.figure(2.0)
        first, second = drawn.subplots(1, 2)
        look = {"color": "#204080", "marker": "o", "linestyle": (0, (2, 1)), "linewidth": 1.0, "zorder": 2}
        faint = {"color": style.FAINT, "marker": "s", "linestyle": "-", "linewidth": 0.8, "zorder": 1.7}
        artists.lines(first, [([1, 2, 3], [1, 3, 2], look), ([1, 2, 3], [3, 1, 2], faint)])
        first.text(2, 2, "a", rotation=30)
        second.imshow([[0.0, 1.0], [1.0, 0.5]], interpolation="nearest")
        drawn.get_layout_engine().execute(drawn)
        drawn.set_layout_engine("none")
        drawn.set_dpi(80)
        ours, png, svg = formats(drawn, canvas.METADATA), BytesIO(), BytesIO()
        FigureCanvasAgg(drawn).print_png(png)
        FigureCanvasSVG(drawn).print_svg(svg, metadata=canvas.METADATA["svg"])
    mine, theirs = (np.asarray(Image.open(BytesIO(one)).convert("RGB")) for one in (ours["png"], png.getvalue()))
    assert (mine == theirs).all() and len(np.unique(mine)) > 2
    for kind in (b"<use ", b"<path ", b"<image "):
        assert ours["svg"].count(kind) == svg.getvalue().count(kind) > 0
    assert ours["pdf"].startswith(b"%PDF") and ours["pdf"].rstrip().endswith(b"%%EOF")
