"""The delta rule and online learning: what is written is compared with what is known."""
