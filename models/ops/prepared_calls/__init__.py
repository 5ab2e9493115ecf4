"""Calls that are made again and again with the same memory, prepared once: `walk` makes many of them in one compiled call."""
