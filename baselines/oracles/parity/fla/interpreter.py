"""Triton's interpreter, made to run fla's kernels: on a CPU, without a GPU or a compiler, so that our calls can be proven.

It takes TRITON_INTERPRET=1 in the environment before Triton is imported. Four things of fla's lie outside what the interpreter
does by itself: it benchmarks configurations on a device, loops over `range` give plain integers where a kernel asks for
`.to`, `gather` is called under an alias that is a placeholder, and a comparison of two scalars that is spread over a block comes
out as integers, which are no mask. mamba-ssm's kernels add one: an elementary function as one line of the GPU's assembly.
`prepare` mends them.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from models.ops.providers import interpreted

ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod")


def reason() -> str:
    """Why the interpreter cannot be used here; "" if it can."""
    missing = [name for name in ("triton", "fla") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install fla-core==0.6.0 triton==3.9.0, apart from [parity]"
    return "" if interpreted() else "runs in Triton's interpreter: set TRITON_INTERPRET=1"


@cache
def prepare() -> None:
    """Patch Triton once. Raises ModuleNotFoundError if it is absent."""
    autotuner, interpreter = (import_module(f"triton.runtime.{name}").__dict__ for name in ("autotuner", "interpreter"))
    tuner = autotuner["Autotuner"]
    pruned = tuner.prune_configs
    tuner.prune_configs = lambda self, named: pruned(self, named)[:1]
    tuner._bench = lambda self, *inputs, config=None, **meta: [0.0] * 3
    builder = interpreter["InterpreterBuilder"]
    builder.create_splat = _truth_kept(builder.create_splat)
    builder.create_inline_asm = lambda self, line, constraints, values, *_: _Assembled(line, values)
    executor = interpreter["GridExecutor"]
    execute = executor.__call__

    def with_loops(self: Any, *inputs: Any, **named: Any) -> Any:
        _mend(_innermost(self.fn).__globals__)
        return execute(self, *inputs, **named)

    executor.__call__ = with_loops


class _Assembled:
    """What one line of assembly makes of its one operand: "cos.approx.f32 $0, $1;" is NumPy's cosine."""

    def __init__(self, line: str, values: list[Any]):
        (value,) = values
        function = getattr(import_module("numpy"), line.partition(".")[0])
        self.found = type(value)(function(value.data), value.dtype)

    def get_result(self, index: int) -> Any:
        return self.found


def _truth_kept(spread: Callable) -> Callable:
    def kept(self: Any, kind: Any, value: Any) -> Any:
        found = spread(self, kind, value)
        if value.data.dtype == bool:
            found.data = found.data.astype(bool)
        return found

    return kept


def _innermost(function: Any) -> Any:
    while hasattr(function, "fn"):
        function = function.fn
    return function


def _mend(names: dict[str, Any]) -> None:
    """Give one of fla's modules loops over integers that know `.to`, and the language's own gather."""
    if not names.get("__name__", "").startswith("fla."):
        return
    names["range"] = _range
    if "gather" in names:
        names["gather"] = lambda *inputs, **named: import_module("triton.language").gather(*inputs, **named)


class Index(int):
    """A loop's index, which a kernel may convert as it would a scalar of the device."""

    def to(self, *_: Any, **__: Any) -> Index:
        return self


def _plain(x: Any) -> Any:
    return x.value if type(x).__name__ == "constexpr" else x


def _kept(function: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Index, Any], Any]:
    """An operator of Index: an Index where plain integers give an integer; anything else answers by its own operator."""

    def result(self: Index, other: Any) -> Any:
        other = _plain(other)
        if not isinstance(other, int):
            return NotImplemented
        pair = (int(other), int(self)) if swapped else (int(self), int(other))
        return Index(function(*pair))

    return result


for _name in ARITHMETIC:
    setattr(Index, f"__{_name}__", _kept(getattr(operator, _name), False))
    setattr(Index, f"__r{_name}__", _kept(getattr(operator, _name), True))


def _range(*bounds: Any) -> Iterator[Index]:
    return map(Index, builtins.range(*(int(_plain(x)) for x in bounds)))
