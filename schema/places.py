"""Where the checkout lies, the one place that counts folders upward, and where its cache does."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = "TITANOMACHY_CACHE"  # the variable that names another folder


def cache_folder() -> Path:
    """Where what can be made again is kept: `.cache/` in the checkout, or what TITANOMACHY_CACHE names. It may not be there."""
    return Path(os.environ.get(CACHE) or ROOT / ".cache")
