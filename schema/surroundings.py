"""What a file or a cell may leave changed outside itself, taken before it runs and put back after it.

Models are compared in one house, so that what one of them changes must reach no other: torch's switches, functions of
torch, numpy and this project that were replaced, generators, and the process's own state (environment, search path,
working folder, handlers). `Surroundings` takes it all; `put_back` restores what differs and says what it was.
"""

from __future__ import annotations

import builtins
import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch

OURS = ("models", "baselines", "tasks", "results", "runner", "schema")
WATCHED = (*OURS, "torch.nn", "torch.optim", "torch.autograd", "torch.backends", "torch.linalg", "torch.random")
WATCHED += ("numpy",)
WATCHED_ALONE = ("bench", "torch", "torch.functional", "torch._tensor", "torch._C", "torch._C._nn")
WATCHED_ALONE += ("torch.utils.checkpoint",)
WATCHED_ALONE += ("builtins", "math", "random", "time", "os", "json")
ABSENT = object()
FUNCTIONS = (FunctionType, BuiltinFunctionType, type, property, staticmethod, classmethod)
FUNCTIONS += (MethodDescriptorType, WrapperDescriptorType, GetSetDescriptorType)
TORCH = str(Path(torch.__file__).parent)
HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks")
HOOKS += ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


@dataclass(frozen=True)
class Switch:
    """One thing that can be read and set again; `name` is None where a change of it needs no word."""

    name: str | None
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _flag(holder: Any, name: str, told: str) -> Switch:
    return Switch(told, lambda: getattr(holder, name), lambda value: setattr(holder, name, value))


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _set_device(value: torch.device) -> None:
    torch.set_default_device(None if value.type == "cpu" else value)


def _flushes() -> bool:
    """Whether numbers below the smallest normal one become 0."""
    return (torch.full((1,), 1e-310, dtype=torch.float64) * 1.0).item() == 0.0


NUMERIC = (
    Switch("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Switch("the default device", torch.get_default_device, _set_device),
    Switch("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Switch(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    Switch("whether gradients are taken", torch.is_grad_enabled, torch.set_grad_enabled),
    Switch("anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    Switch("autocast", lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    Switch("the precision of products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Switch("the flushing of denormal numbers", _flushes, torch.set_flush_denormal),
    Switch("numpy's errors", np.geterr, lambda errors: np.seterr(**errors)),
    _flag(torch.backends.mkldnn, "enabled", "torch.backends.mkldnn.enabled"),
    _flag(torch.backends.cudnn, "enabled", "torch.backends.cudnn.enabled"),
    _flag(torch.backends.cudnn, "benchmark", "torch.backends.cudnn.benchmark"),
    _flag(torch.backends.cudnn, "deterministic", "torch.backends.cudnn.deterministic"),
    Switch(None, torch.get_rng_state, torch.set_rng_state),
    Switch(None, np.random.get_state, np.random.set_state),
    Switch(None, random.getstate, random.setstate),
)


def _set_environment(value: dict[str, str]) -> None:
    for name in set(os.environ) - set(value):
        del os.environ[name]
    os.environ.update(value)


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted under us
        return ""


def _handlers() -> dict[int, Any]:
    """What answers each signal; those that no Python code set are left alone."""
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in found.items() if handler is not None}


def _set_handlers(value: dict[int, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # which alone may set them, and so none was set here
    for number, handler in value.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_path(value: list[str]) -> None:
    sys.path[:] = value


def _set_filters(value: list) -> None:
    warnings.filters[:] = value
    warnings._filters_mutated()


PROCESS = (
    Switch(None, lambda: dict(os.environ), _set_environment),
    Switch(None, lambda: list(sys.path), _set_path),
    Switch(None, lambda: list(warnings.filters), _set_filters),
    Switch("the working folder", _folder, lambda folder: folder and os.chdir(folder)),
    Switch("handlers of signals", _handlers, _set_handlers),
    Switch("the mask of new files", _mask, os.umask),
    Switch("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Switch("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    _flag(sys, "stdout", "sys.stdout"),
    _flag(sys, "stderr", "sys.stderr"),
)


class Surroundings:
    """What there is now outside a file or a cell; with `process` the process's own state too."""

    def __init__(self, process: bool = True) -> None:
        self.switches = [(switch, switch.read()) for switch in (*NUMERIC, *(PROCESS if process else ()))]
        self.hooks = [(hooks, dict(hooks)) for hooks in _hooks()]
        self.spaces = [(place, held, dict(_functions(held))) for place, held in _spaces()]

    def put_back(self) -> list[str]:
        """Restore what differs; the names of what was changed, those without a word left out."""
        told = [switch.name for switch, value in self.switches if _restored(switch, value)]
        for hooks, before in self.hooks:
            if dict(hooks) != before:
                hooks.clear()
                hooks.update(before)
                told.append("hooks of every module")
        for place, held, before in self.spaces:
            told += [f"{place}.{name}" for name in _replaced(held, before)]
        return list(dict.fromkeys(name for name in told if name is not None))


@contextmanager
def kept(process: bool = True) -> Iterator[list[str]]:
    """Put back what the block changes; the list that it is given names it afterwards."""
    before, changed = Surroundings(process), []
    try:
        yield changed
    finally:
        changed += before.put_back()


def _restored(switch: Switch, value: Any) -> bool:
    now = switch.read()
    same = repr(now) == repr(value) if isinstance(now, tuple) else now is value
    if not same and isinstance(now, torch.Tensor):
        same = torch.equal(now, value)
    elif not same and not isinstance(now, tuple):
        same = now == value
    if not same:
        switch.write(value)
    return not same


def _hooks() -> list[dict]:
    """torch's hooks that run in every module and optimiser."""
    modules = (sys.modules["torch.nn.modules.module"], sys.modules["torch.optim.optimizer"])
    found = [getattr(module, name, None) for module in modules for name in HOOKS]
    return [hooks for hooks in found if hooks is not None]


def _spaces() -> list[tuple[str, Any]]:
    """The watched modules and the classes that were written in them, by name."""
    found: dict[int, tuple[str, Any]] = {}
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or not _is_watched(name):
            continue
        found.setdefault(id(module), (name, module))  # a second name of a module comes later
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and _is_watched(getattr(cls, "__module__", None) or ""):
                found.setdefault(id(cls), (f"{cls.__module__}.{cls.__qualname__}", cls))
    return list(found.values())


def _is_watched(name: str) -> bool:
    return name in WATCHED_ALONE or any(name == top or name.startswith(top + ".") for top in WATCHED)


def _functions(held: Any) -> Iterator[tuple[str, Any]]:
    """What of a module or class may not be replaced: functions, classes, and constants of ours."""
    ours = _name(held).partition(".")[0] in OURS
    for name, value in list(vars(held).items()):
        if isinstance(value, FUNCTIONS) or (ours and name.isupper()):
            yield name, value


def _name(held: Any) -> str:
    return held.__name__ if isinstance(held, ModuleType) else held.__module__


def _replaced(held: Any, before: dict[str, Any]) -> list[str]:
    """Give a module or class its own functions again; the names that had others, or that hid what lies behind them."""
    space, changed = vars(held), []
    for name, value in before.items():
        now = space.get(name, ABSENT)
        if now is not value and not _by_torch_itself(name, now) and _given(held, name, value):
            changed.append(name)
    hidden = vars(builtins) if isinstance(held, ModuleType) else {}
    for name in [name for name in list(space) if name not in before]:
        if isinstance(held, ModuleType) and name.startswith("__") or not isinstance(space[name], FUNCTIONS):
            continue
        behind = (hidden if isinstance(held, ModuleType) else _inherited(held)).get(name)
        if isinstance(behind, FUNCTIONS) and not _by_torch_itself(name, space[name]):
            delattr(held, name)
            changed.append(name)
    return changed


def _by_torch_itself(name: str, now: Any) -> bool:
    """Whether torch wrapped a function of its own, as its compiler does when it is imported."""
    return isinstance(now, FunctionType) and now.__name__ == name and now.__code__.co_filename.startswith(TORCH)


def _given(held: Any, name: str, value: Any) -> bool:
    try:
        setattr(held, name, value)
    except (AttributeError, TypeError):  # what Python does not let anybody set
        return False
    return True


def _inherited(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parent in reversed(cls.__mro__[1:-1]):
        found |= vars(parent)
    return found
