"""Matrix states in chunks, compiled: for `log_linear` `in_chunks` in `chunks.py`, for `scan` `in_pieces` in `matrix_state.py`."""
