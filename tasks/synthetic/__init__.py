"""Tasks of symbols: recall, copying, forgetting, state tracking."""
