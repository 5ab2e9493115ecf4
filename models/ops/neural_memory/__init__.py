"""Titans' neural memory."""
