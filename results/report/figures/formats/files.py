"""A figure as PNG, SVG and PDF from one drawing: the axes, ticks and texts of a figure take longer than what they end as."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, TransformedBbox

from results.report.figures.formats import letters
from results.report.figures.formats.pdf import File, Pdf
from results.report.figures.formats.png import png
from results.report.figures.formats.svg import Svg

POINTS = 72  # an inch, the unit of both vector formats


class Renderers(RendererBase):
    """Draws with matplotlib's renderer of pixels and, a point where it has so many pixels, with those of vector formats."""

    def __init__(self, pixels: RendererAgg, svg: Svg, pdf: Pdf) -> None:
        super().__init__()
        self.pixels, self.svg, self.pdf = pixels, svg, pdf
        self.ratio = POINTS / pixels.dpi
        self.scale = Affine2D().scale(self.ratio)
        for name in ("points_to_pixels", "get_canvas_width_height", "new_gc"):
            setattr(self, name, getattr(pixels, name))

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        return letters.measured(s, prop, self.pixels.dpi) or self.pixels.get_text_width_height_descent(s, prop, ismath)

    def option_image_nocomposite(self) -> bool:
        return True

    def draw_path(self, gc: GraphicsContextBase, path: Any, transform: Any, rgbFace: Any = None) -> None:
        self.pixels.draw_path(gc, path, transform, rgbFace)
        for renderer, own in self._vectors(gc):
            renderer.draw_path(own, path, transform + self.scale, rgbFace)

    def draw_markers(
        self, gc: GraphicsContextBase, marker: Any, marker_trans: Any, path: Any, trans: Any, rgbFace: Any = None
    ) -> None:
        self.pixels.draw_markers(gc, marker, marker_trans, path, trans, rgbFace)
        for renderer, own in self._vectors(gc):
            renderer.draw_markers(own, marker, marker_trans + self.scale, path, trans + self.scale, rgbFace)

    def draw_path_collection(
        self,
        gc: GraphicsContextBase,
        transform: Any,
        paths: Any,
        transforms: Any,
        offsets: Any,
        offset_trans: Any,
        *looks: Any,
        **more: Any,
    ) -> None:
        if len(paths) == 0:  # a collection's question whether hatches are known here
            return
        self.pixels.draw_path_collection(gc, transform, paths, transforms, offsets, offset_trans, *looks, **more)
        for renderer, own in self._vectors(gc):
            placed = transform + self.scale, paths, transforms, offsets, offset_trans + self.scale
            renderer.draw_path_collection(own, *placed, *looks, **more)

    def draw_quad_mesh(
        self,
        gc: GraphicsContextBase,
        transform: Any,
        wide: int,
        high: int,
        corners: Any,
        offsets: Any,
        offset_trans: Any,
        *looks: Any,
    ) -> None:
        self.pixels.draw_quad_mesh(gc, transform, wide, high, corners, offsets, offset_trans, *looks)
        for renderer, own in self._vectors(gc):
            placed = transform + self.scale, wide, high, corners, offsets, offset_trans + self.scale
            renderer.draw_quad_mesh(own, *placed, *looks)

    def draw_image(self, gc: GraphicsContextBase, x: float, y: float, im: Any, transform: Any = None) -> None:
        self.pixels.draw_image(gc, x, y, im)
        for renderer, own in self._vectors(gc):
            renderer.draw_image(own, x * self.ratio, y * self.ratio, im)

    def draw_text(
        self,
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: Any,
        angle: float,
        ismath: bool = False,
        mtext: Any = None,
    ) -> None:
        line = None if gc.get_clip_rectangle() is not None else letters.of(s, prop)
        above = (self.pixels.height - y) * self.ratio  # the lower edge
        if line is None:
            self.pixels.draw_text(gc, x, y, s, prop, angle, ismath, mtext)
            for renderer, own in self._vectors(gc):
                place = renderer.height - above if renderer.flipy() else above
                renderer.draw_text(own, x * self.ratio, place, s, prop, angle, ismath, mtext)
            return
        size, turn = prop.get_size_in_points(), (math.cos(math.radians(angle)), math.sin(math.radians(angle)))
        scale = size / letters.EM / self.ratio
        cos, sin = scale * turn[0], scale * turn[1]
        gc.set_linewidth(0)
        gc.set_snap(False)
        placed = Affine2D.from_values(cos, sin, -sin, cos, x, self.pixels.height - y)
        self.pixels.draw_path(gc, line.outline, placed, gc.get_rgb())
        self.svg.draw_line(gc, x * self.ratio, y * self.ratio, line, size, angle)
        self.pdf.draw_line(self._copied(self.pdf, gc), x * self.ratio, above, line, size, turn)

    def _vectors(self, gc: GraphicsContextBase) -> Iterator[tuple[Any, GraphicsContextBase]]:
        """Each of the vector renderers with what it draws with; widths and dashes are in points, the clip is in pixels."""
        for renderer in (self.svg, self.pdf):
            own = self._copied(renderer, gc)
            if (inside := gc.get_clip_rectangle()) is not None:
                own.set_clip_rectangle(TransformedBbox(inside, self.scale))
            if gc.get_clip_path()[0] is not None:
                raise NotImplementedError("A clip other than a rectangle is in none of our figures.")
            yield renderer, own

    @staticmethod
    def _copied(renderer: RendererBase, gc: GraphicsContextBase) -> GraphicsContextBase:
        own = renderer.new_gc()
        own.copy_properties(gc)
        return own


def formats(drawn: Figure, metadata: dict[str, dict[str, None]]) -> dict[str, bytes]:
    """The bytes of a figure, which has been laid out, by ending; equal figures give equal bytes."""
    dots, (wide, high) = drawn.dpi, drawn.get_size_inches()
    pixels = RendererAgg(int(wide * dots), int(high * dots), dots)
    svg, file = Svg(wide * POINTS, high * POINTS, dots, metadata["svg"]), File(metadata["pdf"])
    file.newPage(wide, high)
    pdf = Pdf(file, dots, high, wide)
    drawn.draw(Renderers(pixels, svg, pdf))
    svg.finalize()
    pdf.finalize()
    file.finalize()
    file.close()
    return {
        "png": png(np.asarray(pixels.buffer_rgba())[..., :3], dots),
        "svg": svg.stream.getvalue().encode(),
        "pdf": file.bytes.getvalue(),
    }
