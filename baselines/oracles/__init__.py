"""Other people's packages, as oracles: the same inputs and weights go through their code and ours. Not a family."""
