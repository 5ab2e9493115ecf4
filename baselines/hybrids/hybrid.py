"""A hybrid of any registered token mixers: attention among recurrences, or recurrences of several kinds.

    layer i = the mixer at place i mod n of the n layers that the pattern names

Lieber et al. 2024 (Jamba, arXiv 2403.19887), De et al. 2024 (Griffin, arXiv 2402.19427) and Yang et al. 2024 (Gated DeltaNet-H1,
arXiv 2412.06464) put one layer of attention among recurrent ones; which mixers, and how many of each, is a setting here:

    --set "hybrid.layers=gated-deltanet*3,transformer"                 three recurrent layers, then one of attention
    --set "hybrid.layer_settings={'transformer-window.window': 32}"    a mixer's own setting

A pattern may name every token mixer, a user's own too. One that is longer than the model is deep is refused. Each mixer has its
own inner width unless `inner` says one for all; the SwiGLU behind those that do not mix channels themselves is solved, so that
parameters, state or operations match over the sum. Where all mix channels there is none, and `inner` is solved for all of them.

The default is one recurrent layer and one of full attention, which fits into two layers; full attention's state grows.
"""

from __future__ import annotations

from typing import Any

from models.registry import register
from models.shell.hybrid import Hybrid, Layers
from models.shell.model import Size

LAYERS = ("gated-deltanet", "transformer")


@register(
    "hybrid",
    paper="Lieber et al. 2024, arXiv 2403.19887; Yang et al. 2024, arXiv 2412.06464",
    equation="layer i = pattern[i mod n]; by default S <- a S + b k (v - a S^T k)^T, then softmax(q K^T) V",
)
class AnyHybrid(Hybrid):
    """Layers of the token mixers that `layers` names. State: a tuple of the layers' own."""

    layers = LAYERS

    def __init__(
        self,
        size: Size,
        feed: int,
        layers: Layers = LAYERS,
        layer_settings: dict[str, Any] | None = None,
        inner: int | None = None,
        swiglu_everywhere: bool = False,
        provider: str = "auto",
    ):
        super().__init__(size, feed, layers, layer_settings, inner, swiglu_everywhere, provider)
