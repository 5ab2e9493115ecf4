"""Polynomial features of queries and keys: `polynomial_features(x, factors, provider=...)`."""

from models.ops.providers import Operation

polynomial_features = Operation(
    "polynomial features",
    __name__,
    {"recurrence": "plain:plain", "chunked": "plain:plain", "native": "native:native"},
)
