"""A figure as PNG, SVG and PDF from one drawing: the axes, ticks and texts of a figure take longer than what they end as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.backends.backend_pdf import PdfFile, RendererPdf
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, TransformedBbox
from PIL import Image

POINTS = 72  # an inch, the unit of both vector formats
QUICK = {"compress_level": 2}  # of a PNG: a third less time than 4, and no more bytes


class Renderers(RendererBase):
    """Draws with matplotlib's renderer of pixels and, a point where it has so many pixels, with those of vector formats."""

    def __init__(self, pixels: RendererAgg, vectors: Sequence[RendererBase]) -> None:
        super().__init__()
        self.pixels, self.vectors = pixels, vectors
        self.ratio = POINTS / pixels.dpi
        self.scale = Affine2D().scale(self.ratio)
        for name in ("get_text_width_height_descent", "points_to_pixels", "get_canvas_width_height", "new_gc"):
            setattr(self, name, getattr(pixels, name))

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
        self.pixels.draw_text(gc, x, y, s, prop, angle, ismath, mtext)
        above = (self.pixels.height - y) * self.ratio  # the lower edge
        for renderer, own in self._vectors(gc):
            place = renderer.height - above if renderer.flipy() else above
            renderer.draw_text(own, x * self.ratio, place, s, prop, angle, ismath, mtext)

    def _vectors(self, gc: GraphicsContextBase) -> Iterator[tuple[Any, GraphicsContextBase]]:
        """Each of the vector renderers with what it draws with; widths and dashes are in points, the clip is in pixels."""
        for renderer in self.vectors:
            own = renderer.new_gc()
            own.copy_properties(gc)
            if (inside := gc.get_clip_rectangle()) is not None:
                own.set_clip_rectangle(TransformedBbox(inside, self.scale))
            if gc.get_clip_path()[0] is not None:
                raise NotImplementedError("A clip other than a rectangle is in none of our figures.")
            yield renderer, own


def formats(drawn: Figure, metadata: dict[str, dict[str, None]]) -> dict[str, bytes]:
    """The bytes of a figure, which has been laid out, by ending; equal figures give equal bytes."""
    dots, (wide, high) = drawn.dpi, drawn.get_size_inches()
    pixels = RendererAgg(int(wide * dots), int(high * dots), dots)
    svg, pdf = StringIO(), BytesIO()
    vector = RendererSVG(wide * POINTS, high * POINTS, svg, image_dpi=dots, metadata=metadata["svg"])
    file = PdfFile(pdf, metadata=metadata["pdf"])
    file.newPage(wide, high)
    page = RendererPdf(file, dots, high, wide)
    drawn.draw(Renderers(pixels, (vector, page)))
    vector.finalize()
    page.finalize()
    file.finalize()
    file.close()
    png = BytesIO()
    image = Image.fromarray(np.asarray(pixels.buffer_rgba())[..., :3])
    image.save(png, format="png", dpi=(dots, dots), **QUICK)
    return {"png": png.getvalue(), "svg": svg.getvalue().encode(), "pdf": pdf.getvalue()}
