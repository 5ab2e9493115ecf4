"""Recurrent networks whose gates read their own last output: what linear recurrences descend from."""

from models.family import Family

LOOKS = ("lstm", "gru", "janet", "slstm")
FAMILY = Family(__name__, "gated ancestors", place=20, hue=225.0, looks=LOOKS)
