"""Titans (Behrouz, Zhong, Mirrokni 2024, arXiv 2501.00663): LMM, MAC, MAG and MAL."""

from models.family import Family

LOOKS = ("titans-lmm", "titans-mac", "titans-mag", "titans-mal")
FAMILY = Family(__name__, "titans", place=70, hue=25.0, looks=LOOKS)
