"""A user's own file, or a package of several: imported from anywhere, its models join the registry as family `yours`.

A package is a folder with an `__init__.py`; its files import one another by relative imports. What a file changes outside
itself, in torch or in the process, is put back and told: it reaches no other model.
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
from models.matching import deferred
from schema import fault, surroundings

PACKAGE = "__init__.py"
_brought: dict[str, Path] = {}  # the file, or the package's folder, whose import registered a model


class BadFile(ValueError):
    """A user's file or package is missing, fails to import, or registers nothing."""


def is_path(word: str) -> bool:
    """Whether a word of the command line is the path of a user's file or package; no registered name is one."""
    return word.endswith(".py") or os.sep in word


def load_file(path: str | Path, *, own_process: bool = False) -> list[str]:
    """Import a Python file, or a package, and return the names it registers; its classes are in module `yours_<file name>`.

    Loading a file again runs it again. `own_process` says that this process measures the file's models and ends then:
    the search path and the environment stay as the file sets them. Raises BadFile for a file that is missing, fails to
    import (with its error), ends the process, registers no model, or has the file name of another that is loaded.
    """
    deferred.load_all()
    file = Path(path).expanduser().resolve()
    if file.is_dir() and not (file / PACKAGE).is_file():
        raise BadFile(f"The folder {path} has no {PACKAGE}; write one that imports the modules which register a model.")
    if not (file / PACKAGE).is_file() and (file.suffix != ".py" or not file.is_file()):
        raise BadFile(
            f"There is no Python file {path}; give the path of one that registers a model, or of a folder with an {PACKAGE}."
        )
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
    names = [name for name in registry.names() if _is_of(registry.entry(name).file, file)]
    if not names:
        _forget(_name(file))
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
    """The users' files and packages that registered some of these models, each once; the house's own have none."""
    return sorted({str(_brought[name]) for name in names if name in _brought})


def source_of(name: str) -> Path:
    """Where a registered model comes from, for the hash of its code: its file, or the folder of a user's package."""
    place = _brought.get(name)
    return place if place is not None and place.is_dir() else registry.entry(name).file


def files_in(package: Path) -> list[Path]:
    """All files of a package, data too; not what Python caches nor what is hidden."""
    found = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(package).parts))


def _is_of(file: Path, place: Path) -> bool:
    """Whether a file is a user's file, or one of the user's package."""
    return file == place or (place.is_dir() and file.is_relative_to(place))


def _module(file: Path) -> ModuleType:
    """The file's empty module, under a name that is the same in every process; a package's knows where its files are."""
    name, places = _name(file), [str(file)] if file.is_dir() else None
    begin, loaded = file / PACKAGE if places else file, sys.modules.get(name)
    if loaded is not None and Path(loaded.__file__) != begin:
        raise BadFile(f"Another file called {file.name} is loaded already ({loaded.__file__}); rename one of them.")
    spec = importlib.util.spec_from_file_location(name, begin, submodule_search_locations=places)
    return importlib.util.module_from_spec(spec)


def _name(file: Path) -> str:
    """The name of a file's module, or a package's."""
    return f"yours_{file.name if file.is_dir() else file.stem}"


def _forget(name: str) -> None:
    """Make the next import of a module and of those inside it run them again."""
    for one in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[one]


def _run(module: ModuleType, file: Path) -> None:
    _forget(module.__name__)
    sys.modules[module.__name__] = module  # the registry asks it where a class was written
    with _interrupts() as came:
        try:
            with no_exit():
                module.__spec__.loader.exec_module(module)
        except BaseException as error:  # a user's file may raise anything, sys.exit too
            _forget(module.__name__)
            if came:
                raise KeyboardInterrupt from None
            name, line = _where(error, file) or (file.name, None)
            told = f"{name} fails to import{f', line {line}' if line else ''}: {fault(error)}"
            raise BadFile(told + _advice(error, file)) from error


def _advice(error: BaseException, place: Path) -> str:
    """What to do about an import of one's own files that was written as for a package that is installed; "" for any other."""
    if isinstance(error, ImportError) and "no known parent package" in str(error):
        return f"; give the folder that holds it instead ({place.parent.name}{os.sep}), with an {PACKAGE}"
    folder = place if place.is_dir() else place.parent
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if (
        isinstance(error, ModuleNotFoundError)
        and name
        and ((folder / f"{name}.py").is_file() or (folder / name).is_dir())
    ):
        if place.is_dir():
            return f"; write `from .{name} import ...`: a package's own modules are imported relatively"
        return f"; a single file imports no other of yours: give the folder, with an {PACKAGE} and relative imports"
    return ""


def _where(error: BaseException, place: Path) -> tuple[str, int | None] | None:
    """The file of a user's, as it is told, and its last line that an exception came through; None for neither."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    mine = [(Path(name), line) for name, line in frames if _is_of(Path(name), place)]
    return (mine[-1][0].relative_to(place.parent).as_posix(), mine[-1][1]) if mine else None


def blamed(error: BaseException) -> str | None:
    """One line for an exception that came out of a user's file: "mine.py, line 3: ValueError: ..."; None for any other."""
    place = None if isinstance(error, BadFile) else place_of(error)
    return f"{place}: {fault(error)}" if place else None


def place_of(error: BaseException) -> str | None:
    """The last line of a user's file that an exception came through: "mine.py, line 3"; None for any other."""
    places = [_where(error, place) for place in set(_brought.values())]
    return next((f"{place[0]}, line {place[1]}" for place in places if place), None)


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
