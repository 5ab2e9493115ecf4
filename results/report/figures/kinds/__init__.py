"""The kinds of figures, each drawn from evaluations alone."""
