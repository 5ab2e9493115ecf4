"""Transformers that carry memory tokens from segment to segment."""

from models.family import Family

LOOKS = ("rmt", "transformer-xl", "armt", "block-recurrent", "memformer", "feng", "r-transformer", "bmojo")
FAMILY = Family(__name__, "segment recurrent", place=60, hue=300.0, looks=LOOKS)
