"""The shell that every token mixer is put in, and what it does with a state that it is given."""
