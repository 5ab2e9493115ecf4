"""The matrix state's law."""
