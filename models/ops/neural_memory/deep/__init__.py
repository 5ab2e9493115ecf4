"""The deep memory in chunks: the loop over them and its backward pass."""
