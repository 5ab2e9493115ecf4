"""What comes from outside, JSON and TOML that somebody else may have written, read and held to its declared types.

The one module below all wings: `models`, `tasks`, `results` and the hall import it, it imports none of them.

    facts = schema.read_json(path, Facts)            # a TypedDict, dataclass, list[int], Literal["a", "b"], ...
    width = schema.conform(table["width"], int, f"{path}: width")

Whatever is wrong is one sentence that names the source and the place in it, raised as `DataError` or as the ValueError
subclass that the caller names.
"""

from schema.checked import DataError, conform, formed, parse_json, parse_toml, read_json, read_text, read_toml
from schema.words import fault, message, shortened, suggestion

__all__ = ["DataError", "conform", "formed", "parse_json", "parse_toml", "read_json", "read_text", "read_toml"]
__all__ += ["fault", "message", "shortened", "suggestion"]
