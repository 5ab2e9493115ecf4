"""Needle in a haystack: RULER's and a compact form."""
