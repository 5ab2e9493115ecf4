"""Linear recurrences whose decay does not depend on the input."""

from models.family import Family

LOOKS = (
    "retnet", "lru", "s5", "rwkv4", "s4d", "s4",
)  # fmt: skip
FAMILY = Family(__name__, "first generation", place=30, hue=195.0, looks=LOOKS)
