"""What torchrun tells a process that it started, in the environment: how many there are, and which of them this is."""

from __future__ import annotations

import os


def started() -> bool:
    """Whether this process is one of several that torchrun, or a launcher that sets the same variables, started."""
    return processes() > 1


def processes() -> int:
    """All processes, of all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process among all; 0 measures, the others follow it."""
    return int(os.environ.get("RANK", "0"))


def processes_here() -> int:
    """The processes of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes()))


def rank_here() -> int:
    """This process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", rank()))
