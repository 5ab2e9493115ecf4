"""What is wrong with how a figure is laid out: ink at the border, words outside the canvas, words over words."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from results.report.figures import frame
from results.report.figures.words import Words

TOUCH = 1.0  # pixels by which two boxes may overlap: letters do not fill theirs


class Written(NamedTuple):
    """A text that is seen, the box around it, and how it is turned."""

    text: str
    box: Bbox
    angle: float


def written(drawn: Figure) -> list[Written]:
    """Every text of a figure that is seen; the figure has been laid out."""
    renderer, hidden = drawn.canvas.get_renderer(), {id(text) for text in _hidden(drawn)}
    found = []
    for text in drawn.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            found.append(Written(text.get_text(), text.get_window_extent(renderer), text.get_rotation()))
    artists = [artist for artist in drawn.findobj(Words) if artist.get_visible()]
    for panel in framed(drawn):
        around = Words(frame.of(panel).words())
        around.set_figure(drawn)
        artists.append(around)
    return found + [Written(line.text, line.box, line.word.angle) for one in artists for line in one.placed()]


def framed(drawn: Figure) -> list[Axes]:
    """The panels of a figure that have a frame: all but its legend."""
    return [panel for panel in drawn.axes if any(isinstance(artist, frame.Frame) for artist in panel.artists)]


def _hidden(drawn: Figure) -> list[Text]:
    """The texts of axes that are not drawn: a frame writes its own."""
    axes = [axis for panel in drawn.axes for axis in (panel.xaxis, panel.yaxis)]
    assert not any(axis.get_visible() and axis.axes.axison for axis in axes)
    return [text for axis in axes for text in axis.findobj(Text)]


def faults(drawn: Figure) -> list[str]:
    """One sentence for each; the figure is laid out first."""
    drawn.get_layout_engine().execute(drawn)
    drawn.set_layout_engine("none")
    drawn.canvas.draw()
    edge, found = drawn.bbox, []
    pixels = np.asarray(drawn.canvas.buffer_rgba())[..., :3]
    for side, strip in (("left", pixels[:, 0]), ("right", pixels[:, -1]), ("top", pixels[0]), ("bottom", pixels[-1])):
        if (strip < 250).any():
            found.append(f"Ink touches the {side} border.")
    boxes = written(drawn)
    for text, box, _ in boxes:
        if box.x0 < edge.x0 or box.x1 > edge.x1 or box.y0 < edge.y0 or box.y1 > edge.y1:
            found.append(f"{text!r} lies outside the canvas.")
    for (one, a, turn), (other, b, angle) in itertools.combinations(boxes, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > TOUCH and min(a.y1, b.y1) - max(a.y0, b.y0) > TOUCH:
            if not (turn % 90 or angle % 90):  # boxes of turned words say too much
                found.append(f"{one!r} overlaps {other!r}.")
    return found
