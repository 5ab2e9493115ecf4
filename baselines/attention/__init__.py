"""Softmax attention: the reference that every recurrence is compared with."""
