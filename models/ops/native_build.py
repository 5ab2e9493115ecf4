"""Compiled forms of operations: the C that lies beside an operation, built by this machine's compiler at its first use.

On a CPU a state of a few kilobytes stays in the first cache, so the loop over tokens, compiled, is the fastest form.
A library is kept in the cache under a hash of its source, its macros, the compiler and the processor. It appears whole or not
at all, so two processes that build it at once do not meet.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops import recording
from models.ops.providers import NotCovered, is_probing
from schema.places import cache_folder

# No -ffast-math: it takes infinities and NaN for impossible, and changes how the whole process rounds numbers near zero.
# A product and the sum behind it in one instruction (-ffp-contract) round once instead of twice; ISO C leaves that out.
FLAGS = ("-O3", "-march=native", "-std=c11", "-ffp-contract=fast", "-shared", "-fPIC", "-fopenmp")
FLAGS += ("-fno-math-errno", "-fno-trapping-math")
LETTERS = {"p": ctypes.c_void_p, "l": ctypes.c_long, "i": ctypes.c_int, "d": ctypes.c_double}
TIMEOUT = 120  # seconds
_AS_IT_IS = nullcontext()
KINDS = {torch.float32: "float", torch.float64: "double"}
REGISTERS = (
    ("avx512f", 64),
    ("avx", 32),
)  # instruction set of x86 -> bytes of a vector register; 16 on all other processors


REGISTER = 64  # bytes: a multiple of what any register holds
_remembered: list[Any] = []


def remembered(function: Callable) -> Callable:
    """Decorates what finds a library or a function of one: `functools.cache`, which `forget` empties."""
    _remembered.append(cache(function))
    return _remembered[-1]


def forget() -> None:
    """Look for compiler and libraries again, as a new process would."""
    for found in _remembered:
        found.cache_clear()


def compiler() -> list[str]:
    """The C compiler's command: what CC says, or cc; empty where there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return command if shutil.which(command[0]) else []


def without_autocast() -> AbstractContextManager:
    """A block in which the CPU computes in its tensors' own dtypes; nothing is done where it does so already."""
    return torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else _AS_IT_IS


def is_trained_whole(*tensors: Tensor | None) -> bool:
    """Whether compiled code may take a training step whole: a gradient is wanted, of CPU tensors of one dtype, float32 or 64.

    Never inside torch.compile, autocast, or `probing`, where nothing compiled is counted. The first tensor is not None.
    """
    x = tensors[0]
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or is_probing():
        return False
    if not x.is_cpu or x.dtype not in KINDS or not x.numel():
        return False
    given = [one for one in tensors if one is not None]
    return all(one.dtype is x.dtype for one in given) and any(one.requires_grad for one in given)


def in_kind(kind: torch.dtype, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors in dtype `kind`; what has it already, and None, as they are."""
    return tuple(x if x is None or x.dtype is kind else x.to(kind) for x in tensors)


def kind_of(*tensors: Tensor | None) -> torch.dtype:
    """float64 if the first tensor is, else float32: what a compiled form computes in. Raises NotCovered off the CPU."""
    first = next(x for x in tensors if x is not None)
    if first.device.type != "cpu":
        raise NotCovered(f"Provider 'native' computes on CPU tensors, not on {first.device.type}; use auto or chunked.")
    return torch.float64 if first.dtype == torch.float64 else torch.float32


@cache
def lanes(width: int, kind: torch.dtype) -> int:
    """How many numbers a compiled form puts side by side: what a register holds, or a part of that which divides `width`."""
    held = next((size for word, size in REGISTERS if word in _processor().split()), 16)
    return math.gcd(width, held // kind.itemsize)


def whole_vectors(width: int, kind: torch.dtype) -> int:
    """The least multiple of a vector's numbers that holds `width`."""
    return width + -width % lanes(REGISTER, kind)


@remembered
def library(source: Path, kind: torch.dtype, **macros: int) -> recording.Library:
    """The library of a C file for numbers of `kind` (its macro REAL) and these macros, built if the cache has none.

    Raises NotCovered, with what to do, where it cannot be built; a second call says the same without trying again.
    """
    return recording.Library(_loaded(source, kind, **macros))


def _loaded(source: Path, kind: torch.dtype, **macros: int) -> ctypes.CDLL:
    words = tuple(f"-D{name}={int(value)}" for name, value in sorted(macros.items()))
    found = _library(source, (f"-DREAL={KINDS[kind]}", *words))
    if isinstance(found, str):
        raise NotCovered(found)
    return found


@remembered
def compiled(source: Path, kind: torch.dtype, name: str, arguments: str, **macros: int) -> Any:
    """One function of `library`, which takes plain numbers: `arguments` says each one's type by a letter of LETTERS.

    An address (`address`) is a plain number too. Called once a token, it is to cost little: raises what `library` raises.
    """
    found = _loaded(source, kind, **macros)[name]  # an object of its own, whose types nobody else sees
    found.argtypes, found.restype = [LETTERS[letter] for letter in arguments], None
    return recording.Compiled(found)


@remembered
def _library(source: Path, macros: tuple[str, ...]) -> ctypes.CDLL | str:
    """The library, or the sentence that says why there is none; that is warned of once."""
    command = compiler()
    if not command:
        return "Provider 'native' needs a C compiler, and neither CC nor cc is one here; install gcc or clang, or use chunked."
    place = cache_folder() / "native" / f"{source.parent.name}-{_fingerprint(source, macros, command)}.so"
    if not place.exists() and (failure := _build(source, macros, command, place)):
        warnings.warn(failure, stacklevel=4)
        return failure
    try:
        return ctypes.CDLL(str(place))
    except OSError as error:
        return (
            f"Provider 'native' cannot load {place} ({error}); delete the file to have it built again, or use chunked."
        )


def _build(source: Path, macros: Sequence[str], command: Sequence[str], place: Path) -> str:
    """Build the library at `place`. Returns what went wrong, in one sentence; "" if nothing did."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            unfinished = Path(folder) / place.name
            done = subprocess.run(
                [*command, *FLAGS, *_wide(), *macros, str(source), "-o", str(unfinished), "-lm"],
                capture_output=True, text=True, timeout=TIMEOUT,
            )  # fmt: skip
            if done.returncode == 0:
                unfinished.replace(place)
                return ""
        said = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
    except (OSError, subprocess.SubprocessError) as error:
        said = str(error)
    return f"Provider 'native' could not be built from {source.name} with {command[0]} ({said.strip()}); use chunked, or set CC."


def _fingerprint(source: Path, macros: Sequence[str], command: Sequence[str]) -> str:
    """A hash of all that a library's machine code depends on, the files that its source includes among them."""
    parts = [*FLAGS, *_wide(), *macros, _version(tuple(command)), _processor()]
    parts += [path.read_text() for path in _included(source)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _included(source: Path) -> list[Path]:
    """A C file and those that it includes by a path, each once; for them alike."""
    found, left = {}, [source.resolve()]
    while left:
        if (path := left.pop()) not in found:
            found[path] = re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE)
            left += [(path.parent / name).resolve() for name in found[path]]
    return sorted(found)


@remembered
def _version(command: tuple[str, ...]) -> str:
    """What a compiler says of itself."""
    return subprocess.run([*command, "--version"], capture_output=True, text=True).stdout


@cache
def _processor() -> str:
    """The processor's name and instruction sets, for which -march=native builds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _wide() -> tuple[str, ...]:
    """gcc takes half of a 512-bit register unless told otherwise."""
    return ("-mprefer-vector-width=512",) if "avx512f" in _processor().split() else ()


def expect(**given: tuple[Tensor | None, Sequence[int]]) -> None:
    """Raise ValueError, naming the tensor, unless each has its shape: C would read beyond the end of one that has not."""
    for name, (tensor, shape) in given.items():
        if tensor is not None and tensor.shape != torch.Size(shape):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {tuple(shape)}.")


def address(x: Tensor | None) -> int | None:
    """Where a contiguous tensor's numbers lie, as the plain number that `compiled` functions and C structures take."""
    return None if x is None else x.data_ptr()


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """Where a contiguous tensor's numbers lie, for C; NULL for None."""
    return ctypes.c_void_p(0 if x is None else x.data_ptr())
