"""Softmax attention: the reference that every recurrence is compared with."""

from models.family import Family

LOOKS = (
    "transformer",
    "transformer-window",
    "local-attention",
    "linear-attention",
    "based",
    "rebased",
    "performer",
    "polysketch",
    "scatterbrain",
)
FAMILY = Family(__name__, "attention", place=10, hue=255.0, looks=LOOKS)
