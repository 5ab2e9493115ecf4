"""The short causal convolution along time."""
