"""Models whose layers differ: attention among recurrences, or recurrences of several kinds."""

from models.family import Family

LOOKS = ("hybrid", "griffin", "samba", "xlstm")
FAMILY = Family(__name__, "hybrids", place=100, hue=325.0, looks=LOOKS)
