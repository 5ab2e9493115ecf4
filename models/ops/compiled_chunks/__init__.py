"""Matrix states in chunks, compiled: what `scan` and `log_linear` share. `in_chunks` in `chunks.py`."""
