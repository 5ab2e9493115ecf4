"""How much memory this process holds at most, between two moments."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import torch


def reset_peak(device: str) -> int:
    """Start a new peak and return the memory held now."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    _give_back()
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # Linux: sets the resident high-water mark back to what is held now
        return _status("VmRSS")
    return peak(device)


def _give_back() -> None:
    """Return freed memory to the system, so that what a step takes shows as growth; glibc only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak(device: str) -> int:
    """Most bytes held since the peak was last reset; where the system cannot reset it, since the process began."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # macOS tells bytes, the others kibibytes


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))
