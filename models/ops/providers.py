"""The fast forms, with the laws' own signatures, and the one place that chooses who computes.

Providers: `recurrence` (the law's loop), `chunked` (plain PyTorch), `triton` (our own kernels), `fla`
(flash-linear-attention), `mamba-ssm` and `causal-conv1d` (CUDA). `auto` is `chunked` on a CPU and, for tensors on a CUDA
device, the first that is installed and covers what is asked. Whatever runs is noted, so that a row can name it; a provider
that was asked for and is absent, or does not cover what is asked, is an error, never a fallback.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from schema import shortened, suggestion

PROVIDERS = ("recurrence", "chunked", "triton", "fla", "mamba-ssm", "causal-conv1d")
ON_CUDA = ("triton", "fla", "mamba-ssm", "causal-conv1d", "chunked")  # in the order in which auto asks them

# operation -> provider -> "module:function", all with one signature. Imported at the first use.
OPERATIONS: dict[str, dict[str, str]] = {
    "linear memory": {
        "recurrence": "models.ops.neural_memory.recurrence:recurrence",
        "chunked": "models.ops.neural_memory.chunked_linear:chunked",
        "triton": "models.ops.neural_memory.triton.forms:linear",
    },
    "deep memory": {
        "recurrence": "models.ops.neural_memory.recurrence:recurrence",
        "chunked": "models.ops.neural_memory.chunked_deep:chunked",
        "triton": "models.ops.neural_memory.triton.forms:deep",
    },
    "selective": {
        "recurrence": "models.ops.scan.recurrence:selective",
        "chunked": "models.ops.selective_scan.chunked:streamed",
        "mamba-ssm": "models.ops.scan.mamba_ssm:selective",
    },
    "scan": {
        "recurrence": "models.ops.scan.recurrence:recurrence",
        "chunked": "models.ops.scan.chunked:chunked",
        "fla": "models.ops.scan.fla:scan",
        "mamba-ssm": "models.ops.scan.mamba_ssm:scan",
    },
    "test-time training": {
        "recurrence": "models.ops.ttt.recurrence:recurrence",
        "chunked": "models.ops.ttt.chunked:chunked",
    },
    "short convolution": {
        "recurrence": "models.ops.short_convolution.recurrence:recurrence",
        "chunked": "models.ops.short_convolution.chunked:chunked",
        "causal-conv1d": "models.ops.short_convolution.causal_conv1d:convolution",
    },
}

# What a provider has a form of, and why it is not used.
NOT_THE_SAME = {
    (
        "test-time training",
        "fla",
    ): "fla's kernel has no rate of the token that writes, and its read adds z to LN(z), not q",
}


class Package(NamedTuple):
    """What a provider needs on the machine."""

    modules: tuple[str, ...]
    install: str
    interpreted: bool  # has kernels that Triton's interpreter runs without a CUDA device


_CUDA_EXTRA, _MAMBA_EXTRA = 'pip install -e ".[cuda]"', 'pip install --no-build-isolation -e ".[mamba]"'
PACKAGES = {
    "triton": Package(("triton",), _CUDA_EXTRA, True),
    "fla": Package(("fla", "triton"), _CUDA_EXTRA, True),
    "mamba-ssm": Package(("mamba_ssm", "triton"), _MAMBA_EXTRA, False),
    "causal-conv1d": Package(("causal_conv1d",), _MAMBA_EXTRA, False),
}

_watchers: list[set[str]] = []


class ProviderAbsent(RuntimeError):
    """A provider was asked for that has no form of an operation, or is not installed."""


class NotCovered(ProviderAbsent):
    """A provider has a form of the operation, but not for this row of the law, dtype, shape or device."""


@contextmanager
def watch() -> Iterator[set[str]]:
    """Collect the names of the providers that run inside the block."""
    names: set[str] = set()
    _watchers.append(names)
    try:
        yield names
    finally:
        _watchers[:] = [one for one in _watchers if one is not names]  # another may hold equal names


@contextmanager
def unwatched() -> Iterator[None]:
    """Compute something inside the block of which no `watch` around it shall hear."""
    held = _watchers[:]
    _watchers.clear()
    try:
        yield
    finally:
        _watchers[:] = held


def note(provider: str) -> None:
    """Say that `provider` has just computed something."""
    for names in _watchers:
        names.add(provider)


def interpreted() -> bool:
    """True if Triton's kernels run in its interpreter, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def require(provider: str, like: Tensor) -> None:
    """Raise NotCovered unless `provider` can compute on the device and in the dtype of `like`; for the forms themselves."""
    if like.dtype == torch.float64:
        raise NotCovered(f"Provider '{provider}' has no float64 kernels; use provider='chunked' or 'recurrence'.")
    if like.device.type != "cuda" and not (interpreted() and PACKAGES[provider].interpreted):
        raise NotCovered(
            f"Provider '{provider}' computes on CUDA tensors, not on {like.device.type}; use auto or chunked."
        )


@cache
def _missing(provider: str) -> str:
    """The first module that a provider lacks, "" if all are there. Nothing is imported."""
    return next((name for name in PACKAGES[provider].modules if find_spec(name) is None), "")


def check_provider(provider: str) -> None:
    """Raise ValueError unless `provider` is "auto" or a known name, ProviderAbsent unless it can compute something here."""
    if provider == "auto":
        return
    if provider not in PROVIDERS:
        word = f"{shortened(provider)}{suggestion(provider, ('auto', *PROVIDERS))}"
        raise ValueError(f"Unknown provider {word}; choose auto, {', '.join(PROVIDERS)}.")
    present = dict.fromkeys(name for forms in OPERATIONS.values() for name in forms)
    if provider not in present:
        raise ProviderAbsent(
            f"Provider '{provider}' has no form here in this version; use {', '.join(present)} or auto."
        )
    if provider not in PACKAGES:
        return
    package = PACKAGES[provider]
    if missing := _missing(provider):
        raise ProviderAbsent(
            f"Provider '{provider}' needs the module {missing}, which is not installed: {package.install}"
        )
    if not torch.cuda.is_available() and not (interpreted() and package.interpreted):
        raise ProviderAbsent(
            f"Provider '{provider}' needs a CUDA device, and torch sees none here; use auto or chunked."
        )


def choose(operation: str, provider: str) -> Callable:
    """The function that computes `operation`; what runs is noted under its provider's name.

    A named provider is noted here; `auto` looks at the device of the tensors that the function is called with. Raises
    ProviderAbsent, with what there is, if `provider` is absent or has no form of the operation.
    """
    check_provider(provider)
    forms = OPERATIONS[operation]
    if provider == "auto":
        return partial(_automatic, operation)
    if provider not in forms:
        why = NOT_THE_SAME.get((operation, provider))
        raise ProviderAbsent(
            f"Provider '{provider}' has no form of '{operation}' in this version{f' ({why})' if why else ''}; "
            f"use one of: {', '.join(forms)} (or auto)."
        )
    note(provider)
    return _form(forms[provider])


def choose_or_auto(operation: str, provider: str) -> Callable:
    """`choose` for a part that a model's named provider may have no form of: the part then runs under `auto`."""
    return choose(operation, provider if provider in OPERATIONS[operation] else "auto")


def _form(entry: str) -> Callable:
    module, function = entry.split(":")
    return getattr(import_module(module), function)


def order(device: torch.device) -> tuple[str, ...]:
    """The providers that `auto` asks for tensors on a device, the preferred first."""
    return ON_CUDA if device.type == "cuda" else ("chunked",)


def _automatic(operation: str, *inputs: Any, **named: Any) -> Any:
    forms = OPERATIONS[operation]
    tensor = next(x for x in (*inputs, *named.values()) if isinstance(x, Tensor))
    for provider in order(tensor.device):
        if provider not in forms or (provider in PACKAGES and _missing(provider)):
            continue
        try:
            found = _form(forms[provider])(*inputs, **named)
        except NotCovered:
            continue
        except ImportError as error:
            warnings.warn(
                f"Provider '{provider}' is installed but cannot be imported ({error}); auto goes on.", stacklevel=2
            )
            continue
        note(provider)
        return found
    raise ProviderAbsent(f"No provider covers '{operation}' as it was asked for; ask for provider='recurrence'.")
