"""The memory by kernels of our own, written in Triton."""
