"""Linear recurrences whose gates are computed from the input."""
