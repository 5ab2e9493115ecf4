"""Linear recurrences whose gates are computed from the input."""

from models.family import Family

LOOKS = ("mamba", "mamba2", "gla", "hawk", "mambamixer")
FAMILY = Family(__name__, "second generation", place=40, hue=145.0, looks=LOOKS)
