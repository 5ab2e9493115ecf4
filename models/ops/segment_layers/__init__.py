"""Layers that a text passes segment by segment, compiled: all layers of a segment in one call. `native.py` says which."""
