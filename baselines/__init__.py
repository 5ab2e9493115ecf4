"""One file is one baseline; its folder is its family. Importing this package registers every file below it, and Titans.

A file that fails to import is kept in `failures` with its error, is listed by `bench.py list`, and stops nothing.
"""

from __future__ import annotations

import importlib
import pkgutil

import models.titans
from schema import fault, moved

moved.install()
failures: dict[str, str] = {}


def _discover(path: list[str], package: str) -> None:
    for module in pkgutil.walk_packages(path, package + ".", onerror=lambda name: None):
        if module.name.startswith("baselines.oracles"):
            continue  # other people's packages: imported by who compares with them
        try:
            importlib.import_module(module.name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a broken file must not stop the others, sys.exit(0) in it neither
            failures[module.name] = fault(error)


_discover(__path__, "baselines")
_discover(models.titans.__path__, "models.titans")
