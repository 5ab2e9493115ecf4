"""Throughput, memory and side-by-side benchmarks."""
