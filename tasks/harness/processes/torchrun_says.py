"""What torchrun tells a process that it started, in the environment: how many there are, and which of them this is."""

from __future__ import annotations

import os

NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # beside WORLD_SIZE


def started() -> bool:
    """Whether this process is one of several that torchrun, or a launcher that sets the same variables, started."""
    return processes() > 1


def processes() -> int:
    """All processes, of all machines."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """This process among all; 0 measures, the others follow it."""
    return _number("RANK", 0)


def processes_here() -> int:
    """The processes of this machine."""
    return _number("LOCAL_WORLD_SIZE", processes())


def rank_here() -> int:
    """This process among those of its machine."""
    return _number("LOCAL_RANK", rank())


def store() -> tuple[str, int]:
    """Host and port of the store that all processes share."""
    check()
    return os.environ["MASTER_ADDR"], _number("MASTER_PORT", 0)


def check() -> None:
    """Raise ValueError where the environment says that a launcher started this process, but not all that it would say."""
    if lacks := [name for name in NEEDED if started() and not os.environ.get(name)]:
        raise ValueError(
            f"WORLD_SIZE={processes()} in the environment says that a launcher started this process, but {' and '.join(lacks)} "
            f"{'is' if len(lacks) == 1 else 'are'} not set: start it with torchrun, or unset WORLD_SIZE."
        )
    _number("MASTER_PORT", 0)


def _number(name: str, default: int) -> int:
    """A whole number of the environment. Raises ValueError naming the variable."""
    text = os.environ.get(name)
    try:
        return default if text is None else int(text)
    except ValueError:
        raise ValueError(
            f"{name}={text!r} in the environment is no whole number, which launchers of several processes write there; unset it."
        ) from None
