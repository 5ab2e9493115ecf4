"""Wing 1: what a model is. Knows tokens; knows no task and no result."""
