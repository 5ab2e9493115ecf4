"""A user's own file: imported from anywhere, its models join the registry as family `yours`.

What the file changes outside itself, in torch or in the process, is put back and told: it reaches no other model.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from models import registry
from schema import fault, surroundings

_brought: dict[str, Path] = {}  # the file whose import registered a model


class BadFile(ValueError):
    """A user's file is missing, fails to import, or registers nothing."""


def load_file(path: str | Path, *, own_process: bool = False) -> list[str]:
    """Import a Python file and return the names it registers; its classes can be found in module `yours_<file name>`.

    Loading a file again runs it again. `own_process` says that this process measures the file's models and ends then:
    the search path and the environment stay as the file sets them. Raises BadFile for a file that is missing, fails to
    import (with its error), ends the process, registers no model, or has the file name of another that is loaded.
    """
    file = Path(path).expanduser().resolve()
    if file.suffix != ".py" or not file.is_file():
        raise BadFile(f"There is no Python file {path}; give the path of one that registers a model.")
    before = registry.snapshot()
    with surroundings.kept(process=not own_process) as changed:
        try:
            _run(_module(file), file)
        except BadFile:
            registry.restore(before)
            raise
    if changed:
        warnings.warn(
            f"{file.name} changes {', '.join(changed)}, which is put back: a model's file changes nothing outside itself.",
            stacklevel=2,
        )
    names = [name for name in registry.names() if registry.entry(name).file == file]
    if not names:
        raise BadFile(f"{file.name} registers no model; decorate its class with @register from models.registry.")
    _brought.update({name: file for name in registry.names() if registry.entry(name) is not before.get(name)})
    return names


def load_files(paths: Iterable[str | Path], *, own_process: bool = False) -> None:
    """Load those of the files that are not loaded yet. Raises BadFile."""
    for path in paths:
        brought = [name for name, file in _brought.items() if file == Path(path).resolve()]
        if not brought or not set(brought) <= set(registry.names()):
            load_file(path, own_process=own_process)


def files_of(names: Iterable[str]) -> list[str]:
    """The users' files that registered some of these models, each once; the house's own have none."""
    return sorted({str(_brought[name]) for name in names if name in _brought})


def _module(file: Path) -> ModuleType:
    """The file's empty module, under a name that is the same in every process."""
    name = f"yours_{file.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and Path(loaded.__file__) != file:
        raise BadFile(f"Another file called {file.name} is loaded already ({loaded.__file__}); rename one of them.")
    spec = importlib.util.spec_from_file_location(name, file)
    return importlib.util.module_from_spec(spec)


def _run(module: ModuleType, file: Path) -> None:
    sys.modules[module.__name__] = module  # the registry asks it where a class was written
    with _interrupts() as came:
        try:
            with no_exit():
                module.__spec__.loader.exec_module(module)
        except BaseException as error:  # a user's file may raise anything, sys.exit too
            del sys.modules[module.__name__]
            if came:
                raise KeyboardInterrupt from None
            place = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else _line(error, file)
            line = f", line {place}" if place else ""
            raise BadFile(f"{file.name} fails to import{line}: {fault(error)}") from error


def _line(error: BaseException, file: Path) -> int | None:
    """The last line of a file that an exception came through."""
    places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return places[-1] if places else None


def blamed(error: BaseException) -> str | None:
    """One line for an exception that came out of a user's file: "mine.py, line 3: ValueError: ..."; None for any other."""
    if isinstance(error, BadFile):
        return None
    lines = [(file.name, _line(error, file)) for file in set(_brought.values())]
    return next((f"{name}, line {line}: {fault(error)}" for name, line in lines if line), None)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Tells a Ctrl-C from a KeyboardInterrupt that the code inside raises: the list holds the signals that came."""
    came: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield came
        return

    def note(number: int, frame: Any) -> None:
        came.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def no_exit() -> Iterator[None]:
    """os._exit, which no `except` sees, raises SystemExit inside; in a process that is forked there it ends that."""
    real, here = os._exit, os.getpid()

    def refused(code: int) -> Any:
        if os.getpid() != here:
            real(code)
        raise SystemExit(f"os._exit({code})")

    os._exit = refused
    try:
        yield
    finally:
        os._exit = real
