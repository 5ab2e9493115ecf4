"""Processes that train one model together: those that a cell starts on its machine, and those that torchrun started."""
