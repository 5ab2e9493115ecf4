"""The commands of bench.py, one file each."""
