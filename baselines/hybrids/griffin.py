"""Griffin: two recurrent blocks, then one of local attention.

De et al. 2024, arXiv 2402.19427, Section 2: `hawk`, `hawk`, `local-attention`, repeated; every block mixes channels afterwards.
A depth that is no multiple of three ends inside the pattern, as the paper's of 26 does.

Deviations: the channel mixing is the shell's SwiGLU of the solved width, theirs a GeGLU of 3 times the width; the window is 64
tokens, for models trained on hundreds, theirs 1024; no scaled embedding and no cap on the logits (RecurrentGemma alone has them).
"""

from __future__ import annotations

from models.registry import register
from models.shell.hybrid import Hybrid
from models.shell.model import Size


@register(
    "griffin",
    paper="De et al. 2024, arXiv 2402.19427",
    equation="twice h <- a h + sqrt(1 - a^2) (i * x), then softmax(q K^T) V over a window, one K and V for all heads",
)
class Griffin(Hybrid):
    """Recurrent, recurrent, local attention. State: a tuple of the layers' own."""

    layers = ("hawk", "hawk", "local-attention")
    state_setting = "window"

    def __init__(self, size: Size, feed: int, window: int = 64, inner: int | None = None, provider: str = "auto"):
        """`inner` is the width of the recurrences, about 4/3 of the model's by default."""
        super().__init__(size, feed, self.layers, {"local-attention.window": window}, inner, provider=provider)
