"""Linear recurrences whose decay does not depend on the input."""
