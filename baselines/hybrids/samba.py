"""Samba: Mamba and sliding-window attention in turn, a SwiGLU behind each.

Ren et al. 2024, arXiv 2406.07522, Section 2: Mamba, MLP, window attention, MLP, repeated; a layer here is a mixer and its SwiGLU.

Deviations: the window is 64 tokens, for models trained on hundreds, theirs 2048; the SwiGLU has the solved width.
"""

from __future__ import annotations

from models.registry import register
from models.shell.hybrid import Hybrid
from models.shell.model import Size


@register(
    "samba",
    paper="Ren et al. 2024, arXiv 2406.07522",
    equation="h <- exp(Delta A) . h + Delta B x, then softmax(q K^T) V over a window, in turn",
)
class Samba(Hybrid):
    """Mamba, window attention. State: a tuple of the layers' own."""

    layers = ("mamba", "transformer-window")
    swiglu_everywhere = True
    state_setting = "window"

    def __init__(self, size: Size, feed: int, window: int = 64, inner: int | None = None, provider: str = "auto"):
        """`inner` is the number of Mamba's channels, twice the width by default."""
        own = {"transformer-window.window": window}
        super().__init__(size, feed, self.layers, own, inner, self.swiglu_everywhere, provider)
