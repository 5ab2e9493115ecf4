"""Equal terms: parameters, training FLOPs or state bytes of every model."""
