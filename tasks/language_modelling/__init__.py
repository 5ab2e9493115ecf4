"""Language modelling, and what is asked after it."""
