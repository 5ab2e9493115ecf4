"""A user's own file: imported from anywhere, its models join the registry as family `yours`."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from models import registry


class BadFile(ValueError):
    """A user's file is missing, fails to import, or registers nothing."""


def load_file(path: str | Path) -> list[str]:
    """Import a Python file and return the names it registers; its classes can be found in module `yours_<file name>`.

    Loading a file again runs it again. Raises BadFile for a file that is missing, fails to import (with its error),
    registers no model, or has the file name of another that is loaded.
    """
    file = Path(path).expanduser().resolve()
    if file.suffix != ".py" or not file.is_file():
        raise BadFile(f"There is no Python file {path}; give the path of one that registers a model.")
    _run(_module(file), file)
    names = [name for name in registry.names() if registry.entry(name).file == file]
    if not names:
        raise BadFile(f"{file.name} registers no model; decorate its class with @register from models.registry.")
    return names


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
    try:
        module.__spec__.loader.exec_module(module)
    except Exception as error:  # a user's file may raise anything
        del sys.modules[module.__name__]
        places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        place = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (places[-1] if places else None)
        line = f", line {place}" if place else ""
        raise BadFile(f"{file.name} fails to import{line}: {type(error).__name__}: {error}") from error
