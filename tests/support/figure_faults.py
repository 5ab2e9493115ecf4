"""What is wrong with how a figure is laid out: ink at the border, words outside the canvas, words over words."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

TOUCH = 1.0  # pixels by which two boxes may overlap: letters do not fill theirs


def texts(drawn: Figure) -> list[Text]:
    """Every text of a figure that is seen."""
    found = []
    for text in drawn.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            found.append(text)
    shown = {id(label) for panel in drawn.axes for axis in _axes(panel) for label in _shown_labels(axis)}
    ticks = {id(label) for panel in drawn.axes for axis in _axes(panel) for label in _labels(axis)}
    return [text for text in found if id(text) not in ticks or id(text) in shown]


def _axes(panel) -> list:
    return [panel.xaxis, panel.yaxis] if panel.axison else []


def _labels(axis) -> list[Text]:
    return [label for tick in (*axis.majorTicks, *axis.minorTicks) for label in (tick.label1, tick.label2)]


def _shown_labels(axis) -> list[Text]:
    return [tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible()]


def faults(drawn: Figure) -> list[str]:
    """One sentence for each; the figure is laid out first."""
    drawn.get_layout_engine().execute(drawn)
    drawn.set_layout_engine("none")
    drawn.canvas.draw()
    renderer, edge = drawn.canvas.get_renderer(), drawn.bbox
    found = []
    pixels = np.asarray(drawn.canvas.buffer_rgba())[..., :3]
    for side, strip in (("left", pixels[:, 0]), ("right", pixels[:, -1]), ("top", pixels[0]), ("bottom", pixels[-1])):
        if (strip < 250).any():
            found.append(f"Ink touches the {side} border.")
    hidden = {
        id(text)
        for panel in drawn.axes
        if not panel.axison
        for axis in (panel.xaxis, panel.yaxis)
        for text in (*_labels(axis), axis.label)
    }
    boxes = [(text, text.get_window_extent(renderer)) for text in texts(drawn) if id(text) not in hidden]
    for text, box in boxes:
        if box.x0 < edge.x0 or box.x1 > edge.x1 or box.y0 < edge.y0 or box.y1 > edge.y1:
            found.append(f"{text.get_text()!r} lies outside the canvas.")
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > TOUCH and min(a.y1, b.y1) - max(a.y0, b.y0) > TOUCH:
            if not (one.get_rotation() % 90 or other.get_rotation() % 90):  # boxes of turned words say too much
                found.append(f"{one.get_text()!r} overlaps {other.get_text()!r}.")
    return found
