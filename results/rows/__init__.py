"""Rows: what one number is, how it is kept, and what it is held against."""
