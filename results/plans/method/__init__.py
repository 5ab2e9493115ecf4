"""How a comparison decides: the claims it tests and their names, the looks at its seeds, its pilot."""
