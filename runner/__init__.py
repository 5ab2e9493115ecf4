"""What turns a cell of a plan into rows: it knows models, tasks and rows, and the command line stands above it."""
