"""What a layer does with a few rows in one call each, compiled: RMS norm, linear maps, SwiGLU (`native`)."""
