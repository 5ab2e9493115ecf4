"""The conformance kit: what every registered model is held to."""
