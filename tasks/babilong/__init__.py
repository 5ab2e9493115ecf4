"""BABILong: bAbI questions whose facts are scattered in book text."""
