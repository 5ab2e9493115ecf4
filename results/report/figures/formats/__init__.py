"""A figure as files: one drawing for all formats, whose letters are measured and turned into curves once."""
