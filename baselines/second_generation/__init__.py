"""Linear recurrences whose gates are computed from the input."""

from models.family import Family

FAMILY = Family(__name__, "second generation", place=40, hue=145.0)
