"""What only the device itself can tell of this code, in one go and with rows: `bench.py check --device`."""
