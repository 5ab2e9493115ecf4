"""Test-time training."""
