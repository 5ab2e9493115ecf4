"""Parts of torch that are imported when something first asks for them, not with torch: a dry run does without nearly all.

`import torch` itself imports them, for users that name them without importing them; together they take a third of its time. Until
then each stands as an empty module; to read one of its names, to import what lies in it, or `load` imports it. Only a program
that says so before it imports torch (`bench.py run --dry-run`) defers anything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

META = "torch._meta_registrations"  # Python forms of operations on the meta device, of those that have no compiled one
TORCH = (META, "torch.export", "torch.nn.intrinsic", "torch.nn.qat", "torch.nn.quantizable", "torch.nn.quantized")
TORCH += ("torch.quantization", "torch.distributions", "torch.masked")


class _Deferred(ModuleType):
    """A module that is imported when one of its names is first read; those that every module has are known before."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # as `inspect` asks of every module that there is
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _load(self)
        return getattr(self, name)


class _Later:
    """The loader of a module that leaves its code for later."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing yet: `_load` does it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class _Finder:
    """Finds the modules of TORCH, and what lies in one of them once that is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name not in TORCH:
            load(name.rpartition(".")[0])
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


_FINDER = _Finder()


def defer() -> None:
    """From here on the modules of TORCH are imported when they are asked for."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def is_deferred(name: str) -> bool:
    """Whether a module was deferred and has not been asked for yet."""
    return type(sys.modules.get(name)) is _Deferred


def load(name: str) -> None:
    """Import a module if it was deferred."""
    if is_deferred(name):
        _load(sys.modules[name])


def load_all() -> None:
    """Import all that was deferred, and defer no more: for code of which nobody knows what it asks."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    for name in TORCH:
        load(name)


def _load(module: ModuleType) -> None:
    spec = module.__spec__
    module.__class__ = ModuleType  # first: what it imports may import it
    spec.loader = module.__loader__ = spec.loader.loader
    spec.loader.exec_module(module)
