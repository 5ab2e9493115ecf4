"""The commands that write for elsewhere: a model for transformers, scores and data for other projects, a paper's appendix."""
