"""The delta rule and online learning: what is written is compared with what is known."""

from models.family import Family

LOOKS = (
    "deltanet", "gated-deltanet", "ttt-linear", "ttt-mlp", "longhorn", "kda", "rwkv7", "deltaproduct",
    "gated-deltaproduct", "gated-deltanet-2", "comba", "mesanet", "lact", "log-linear-gated-deltanet",
)  # fmt: skip
FAMILY = Family(__name__, "third generation", place=50, hue=85.0, looks=LOOKS)
