"""The matrix state's law in pieces of a few tokens, compiled, for training: where it compares, and where it only writes."""
