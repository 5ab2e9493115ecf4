"""Memories in Titans' manner with another loss, another way of retaining, or another optimiser: MIRAS, OmegaNet, ATLAS."""

from models.family import Family

LOOKS = ("yaad", "moneta", "omeganet", "memora", "atlas")
FAMILY = Family(__name__, "after Titans", place=80, hue=330.0, marker="*", looks=LOOKS)
