"""Where a command prints: a terminal of any alphabet, or a file or pipe, in which nothing is cut; and how a fault is told."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path

from rich.console import Console

from schema.places import ROOT
from schema.words import one_line, shortened, warn_in_one_line

WIDE = 10_000  # columns where no terminal is: wider than any table, so that none is cut and no line is wrapped
LONGEST_PATH = 300  # characters of a file's name that a message repeats
TRACE = "TITANOMACHY_TRACE"
# What bad input raises, by the house's own sentences or by Python's and torch's; all else is a fault of the program.
OF_INPUT = (ValueError, KeyError, RuntimeError, OSError, ImportError)
FULL = (
    errno.ENOSPC,
    errno.EFBIG,
    errno.EDQUOT,
)  # what writing raises where the disk, or one's share of it, takes no more
OF_LIMITS = {
    MemoryError: "there is not enough memory for this",
    RecursionError: "something is nested more deeply than Python can follow",
    OverflowError: "a number is too large",
}


def console() -> Console:
    """What commands print to. Letters that its encoding lacks are replaced by "?", on the error stream too."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    warn_in_one_line()
    made = Console()
    return made if made.is_terminal else Console(width=WIDE)


def told(error: Exception) -> str:
    """A fault in one line: the sentence of bad input; of anything unexpected what, where, and how to see the rest."""
    text = one_line(str(error))
    if isinstance(error, KeyError) and type(error).__str__ is KeyError.__str__:  # which would print the key alone
        text = ""
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" {error.filename}" if error.filename else ""
        return f"The disk takes no more ({error.strerror}){where}: make room and run it again; what was written whole stands."
    if isinstance(error, OSError) and error.filename and error.strerror:  # its number says nothing
        files = [shortened(str(name), LONGEST_PATH) for name in (error.filename, error.filename2) if name]
        text = f"{error.strerror}: {' and '.join(files)}"
    if isinstance(error, OF_INPUT) and text and not isinstance(error, NotImplementedError | RecursionError):
        return text
    limit = next((words for kind, words in OF_LIMITS.items() if isinstance(error, kind)), None)
    name = f"{type(error).__name__}: {text or one_line(str(error))}".removesuffix(": ")
    return f"{limit or 'a fault of the program'} ({name}) at {_place(error)}; {TRACE}=1 prints how it came there."


def _place(error: Exception) -> str:
    """Where in the house it happened: the innermost frame that is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)] or frames
    if not ours:
        return "an unknown place"
    path = Path(ours[-1].filename)
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{ours[-1].lineno}"
