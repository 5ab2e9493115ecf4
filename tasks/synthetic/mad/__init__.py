"""The six synthetic tasks of mechanistic architecture design (Poli et al. 2024, arXiv 2403.17844), with its defaults."""
