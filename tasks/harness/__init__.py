"""The one training loop and the one evaluation loop, and what they keep."""
