"""The needle asked of models that were trained on running text alone: papers' protocol for retrieval."""

from __future__ import annotations

from tasks.language_modelling.transfer import Alias
from tasks.needle.task import Needle


class ZeroShotNeedle(Alias):
    """Needle in a haystack after language modelling: no needle is ever trained (S-NIAH as papers ask it).

    It is `needle` with `train_on = { name = "language-modelling" }`: training and validation are those of
    `language-modelling` over `corpus` in windows of `length`; the test is that of `needle`, with its settings and metrics,
    in RULER's wording, and books of `haystack` (by default of `corpus`).

    >>> print(aligned(create("zero-shot-needle", length=64, template="compact", depths=(0.5,))))
     back again. The |pearl=1809|grass is green. The sky |pearl=1809
    ___________________________________________________________1809|
    """

    name = "zero-shot-needle"
    asks = Needle
    changed = {"template": "ruler"}
