"""Memories beside the weights: a store of the training text, a table of what the text has shown, a pool in every layer."""

from models.family import Family

LOOKS = ("knn-lm", "camelot", "memoryllm", "memoryllm-frozen")
FAMILY = Family(__name__, "external memory", place=65, hue=115.0, marker="h", looks=LOOKS)
