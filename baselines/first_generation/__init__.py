"""Linear recurrences whose decay does not depend on the input."""

from models.family import Family

LOOKS = ("retnet", "s4d", "s4")
FAMILY = Family(__name__, "first generation", place=30, hue=195.0, looks=LOOKS)
