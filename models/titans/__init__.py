"""Titans (Behrouz, Zhong, Mirrokni 2024, arXiv 2501.00663): LMM, MAC, MAG and MAL."""
