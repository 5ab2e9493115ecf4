"""The fast forms, with the laws' own signatures, and the one place that chooses who computes.

Providers: `recurrence` (the law's loop), `chunked` (plain PyTorch), `triton` (our own kernels), `fla`
(flash-linear-attention), `mamba-ssm` and `causal-conv1d` (CUDA). `auto` takes the first that an operation has for the device.
Whatever runs is noted, so that a row can name it; a provider that was asked for and is absent is an error, never a fallback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

PROVIDERS = ("recurrence", "chunked", "triton", "fla", "mamba-ssm", "causal-conv1d")

# operation -> provider -> "module:function", all with one signature. Imported at the first use.
OPERATIONS: dict[str, dict[str, str]] = {
    "linear memory": {
        "recurrence": "models.neural_memory:recurrence",
        "chunked": "models.kernels.neural_memory:chunked",
        "triton": "models.kernels.triton_memory:linear",
    },
    "deep memory": {
        "recurrence": "models.neural_memory:recurrence",
        "chunked": "models.kernels.neural_memory_deep:chunked",
        "triton": "models.kernels.triton_memory:deep",
    },
    "selective": {"recurrence": "models.recurrence:selective", "chunked": "models.kernels.selective_scan:streamed"},
    "scan": {"recurrence": "models.recurrence:recurrence", "chunked": "models.kernels.scan:chunked"},
    "test-time training": {
        "recurrence": "models.test_time_training:recurrence",
        "chunked": "models.kernels.test_time_training:chunked",
    },
}

_watchers: list[set[str]] = []


class ProviderAbsent(RuntimeError):
    """A provider was asked for that has no form of an operation, or is not installed."""


@contextmanager
def watch() -> Iterator[set[str]]:
    """Collect the names of the providers that run inside the block."""
    names: set[str] = set()
    _watchers.append(names)
    try:
        yield names
    finally:
        _watchers.remove(names)


def note(provider: str) -> None:
    """Say that `provider` has just computed something."""
    for names in _watchers:
        names.add(provider)


def check_provider(provider: str) -> None:
    """Raise ValueError unless `provider` is "auto" or a known name, ProviderAbsent unless it has a form of something."""
    if provider != "auto" and provider not in PROVIDERS:
        raise ValueError(f"Unknown provider '{provider}'; choose auto, {', '.join(PROVIDERS)}.")
    present = dict.fromkeys(name for forms in OPERATIONS.values() for name in forms)
    if provider != "auto" and provider not in present:
        raise ProviderAbsent(
            f"Provider '{provider}' has no form here in this version; use {', '.join(present)} or auto."
        )


def choose(operation: str, provider: str) -> Callable:
    """The function that computes `operation`, noted under its provider's name.

    Raises ProviderAbsent, with what there is, if `provider` has no form of the operation.
    """
    check_provider(provider)
    forms = OPERATIONS[operation]
    name = "chunked" if provider == "auto" else provider
    if name not in forms:
        raise ProviderAbsent(
            f"Provider '{name}' has no form of '{operation}' in this version; use one of: {', '.join(forms)} (or auto)."
        )
    note(name)
    module, function = forms[name].split(":")
    return getattr(import_module(module), function)
