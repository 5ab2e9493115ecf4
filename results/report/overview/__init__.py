"""One page over all comparisons: what each model can do, what it costs, and which claims hold."""
