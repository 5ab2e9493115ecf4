"""flash-linear-attention: its naive forms, its kernels, its layers, and Triton's interpreter."""
