"""Wing 3: what was measured and how it is shown. Knows cells and rows; no model, no task."""
