"""Which cells run when, where, and how long that will take."""
