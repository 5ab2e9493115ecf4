"""Where the checkout lies: the one place that counts folders upward."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
