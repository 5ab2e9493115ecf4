#!/usr/bin/env python3
"""Titanomachy: train, evaluate and time sequence models on equal terms.

    python bench.py list                    what there is: models, tasks, plans
    python bench.py run quick --dry-run     what a comparison measures and costs
    python bench.py run quick               measure what is missing, draw it

python bench.py COMMAND --help shows a command's flags and an example.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from models.matching import deferred
from runner.preflight import said
from schema import checkout
from schema.places import ROOT

if TYPE_CHECKING:
    from runner.commands.shared.arguments import Command

COMMANDS = {  # each by the module of runner/commands/ that brings it, imported when it is called
    "list": "list", "run": "run", "report": "report", "submit": "report", "verify": "verify", "check": "check",
    "profile": "profile", "zero-shot": "lm_eval", "ask": "ask", "export": "exports.model",
    "show": "show", "artifact": "exports.artifact", "export-results": "exports.results",
    "export-data": "exports.data",
}  # fmt: skip


def commands(words: Sequence[str]) -> dict[str, Command | None]:
    """The commands by name, only the one that is called as more than a name; all of them where none is."""
    called = [name for name in COMMANDS if words and words[0] == name] or list(COMMANDS)
    modules = {name: f"runner.commands.{module}" for name, module in COMMANDS.items()}
    return {name: import_module(modules[name]).COMMANDS[name] if name in called else None for name in COMMANDS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: done; 1: done, but a cell failed or a row differs; 2: refused in one sentence; 130: Ctrl-C.

    A fault of the program is 2 as well, and its one line says where it lies and how to get the traceback.
    """
    from models import user_file  # imports torch, which a dry run that is printed again does without
    from runner.commands.shared import arguments as command_line
    from runner.commands.shared import terminal
    from tasks.text import cache

    console = terminal.console()
    if lacks := checkout.absent(ROOT):
        print(f"bench.py: {lacks}", file=sys.stderr)
        return 2
    try:
        words = sys.argv[1:] if arguments is None else arguments
        parsed = command_line.parsed(command_line.parser(__doc__, commands(words)), words)
        if getattr(parsed, "cache", None):
            os.environ[cache.VARIABLE] = str(Path(parsed.cache).expanduser().resolve())  # for the workers too
        with user_file.no_exit():
            return parsed.action(parsed, console)
    except KeyboardInterrupt:
        print("Stopped; what was measured is kept, run the same command to go on.", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get(terminal.TRACE):
            raise
        print(f"bench.py: {user_file.blamed(error) or terminal.told(error)}", file=sys.stderr)
        return 2
    except BaseException as error:  # whatever else a user's own file raises, sys.exit(0) too
        if (said := user_file.blamed(error)) is None or os.environ.get(terminal.TRACE):
            raise
        print(f"bench.py: {said}", file=sys.stderr)
        return 2


def program(words: Sequence[str]) -> int:
    """`main` of a process of its own; a dry run that would say what it said before is printed again."""
    if (text := said.before(words)) is not None:
        return said.printed(text)
    if said.is_asked(words):
        deferred.defer()  # before anything imports torch
        gc.disable()  # it ends in seconds, and to search all that torch brought for what is gone takes a fifth of them
    return main(words)


if __name__ == "__main__":
    status = program(sys.argv[1:])
    if said.is_asked(sys.argv[1:]):
        said.leave(status)
    sys.exit(status)
