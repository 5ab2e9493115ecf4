"""Transformers that carry memory tokens from segment to segment."""
