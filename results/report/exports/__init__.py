"""Rows and generated sets in the forms of other projects."""
