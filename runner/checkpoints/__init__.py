"""Kept models: what a checkpoint says, where it lies, and the model that is loaded, resumed or trained from it."""
