"""Weighted sums of all earlier layers' outputs, compiled for training: `layer_sums.native.LayerSums`."""
