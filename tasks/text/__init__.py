"""Texts, their splits and their tokens."""
