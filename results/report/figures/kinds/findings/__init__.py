"""Figures of what is found over a whole comparison: verdicts on claims, average ranks."""
