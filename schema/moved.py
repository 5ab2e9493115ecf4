"""Modules under the names that they had before they moved, for scripts that were written against those.

`install()` lets `import tasks.corpus` give `tasks.text.corpus`, the module itself and not a copy, with a DeprecationWarning.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "baselines.oracles.lm_evaluation_harness": "baselines.oracles.adapters.lm_evaluation_harness",
    "tasks.corpus": "tasks.text.corpus",
    "tasks.evaluate": "tasks.harness.evaluate",
    "tasks.memory": "tasks.harness.peak_memory",
    "tasks.tokenizer": "tasks.text.tokenizer",
    "tasks.train": "tasks.harness.train",
}


class _Moved(MetaPathFinder, Loader):
    """Finds the modules of MOVED, behind all other finders: what is at its place is never asked for here."""

    def __init__(self) -> None:
        self.specs: dict[str, ModuleSpec | None] = {}  # what the import system overwrites, by former name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(f"{spec.name} is {MOVED[spec.name]} now; import that.", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(MOVED[spec.name])
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run again."""
        module.__spec__ = self.specs[module.__spec__.name]


def install() -> None:
    """Let the former names be imported in this process."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
