"""Softmax attention: the reference that every recurrence is compared with."""

from models.family import Family

LOOKS = (
    "transformer", "transformer-window", "local-attention", "fast-weights", "routing", "bahdanau",
    "linear-attention", "based", "rebased", "performer", "polysketch", "scatterbrain",
)  # fmt: skip
FAMILY = Family(__name__, "attention", place=10, hue=255.0, looks=LOOKS)
