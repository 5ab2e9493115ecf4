"""Random draws that depend on their purpose alone: the same bytes on any platform and in any process."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any

import numpy as np


def seed(*purpose: Any) -> int:
    """A stable 256-bit number for a purpose such as ("needle", "test", 512, 0.25), from the purpose's written form."""
    return int.from_bytes(hashlib.sha256(repr(purpose).encode()).digest(), "big")


def generator(*purpose: Any) -> np.random.Generator:
    """A numpy generator for draws of whole arrays."""
    return np.random.Generator(np.random.PCG64(seed(*purpose)))


def stream(*purpose: Any) -> Random:
    """A generator of the standard library, for draws one by one."""
    return Random(seed(*purpose))
