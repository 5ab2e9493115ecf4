"""bAbI's twenty tasks: our simulator, and the released files."""
