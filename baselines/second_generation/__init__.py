"""Linear recurrences whose gates are computed from the input."""

from models.family import Family

LOOKS = (
    "mamba", "mamba2", "gla", "hawk", "mingru", "minlstm", "rwkv6", "mamba3", "liquid-s4", "log-linear-mamba2",
    "mlstm", "xlstm-7b", "hgrn2", "mambamixer",
)  # fmt: skip
FAMILY = Family(__name__, "second generation", place=40, hue=145.0, looks=LOOKS)
