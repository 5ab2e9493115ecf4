"""The cells in plain PyTorch, their backward passes by hand."""
