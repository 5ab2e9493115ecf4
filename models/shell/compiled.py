"""A whole model through torch.compile, inside a block of code and never in part of it unsaid.

What is compiled is `forward`, and `hidden` where a model has that (`LanguageModel`); recurrences in C (provider `native`) and
kernels of packages stay as they are, between compiled pieces. Rows name the provider `compile` beside those that ran.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from models.ops import providers
from schema import fault

BACKEND = "inductor"
NAME = "compile"  # as rows name it among the providers
PARTS = ("hidden", "forward")  # of a model that are compiled, where it has them
MOST_FORMS = 64  # of one function, for other shapes or other states; torch's own limit is 8


class CannotCompile(ValueError):
    """torch.compile fails on a model, or has no compiler to work with."""


def check(device: str) -> None:
    """Raise CannotCompile where code for a CPU is asked for and no C++ compiler is here."""
    if device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++"))):
        raise CannotCompile(
            "compile needs a C++ compiler on a CPU, and neither g++ nor clang++ is here; install one, or leave compile out."
        )


@contextmanager
def compiled(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Inside, the model's forward and backward are compiled, if `wanted`; its weights and its own methods are the same after it.

    Raises CannotCompile where torch.compile fails, or would go on uncompiled because a function takes on more than
    MOST_FORMS forms.
    """
    if not wanted:
        yield
        return
    # Imported here: torch's compiler takes seconds to import, which nobody else should wait for.
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler, OperatorIssue
    from torch.compiler import disable

    faults = (TorchDynamoException, FailOnRecompileLimitHit, CppCompileError, InvalidCxxCompiler, OperatorIssue)
    parts = [part for part in PARTS if callable(getattr(model, part, None))]
    try:
        for part in parts:
            setattr(model, part, _noted(torch.compile(getattr(model, part), backend=BACKEND)))
        with (
            torch_as_it_was(),
            providers.wrapped(disable),
            torch._dynamo.config.patch(recompile_limit=MOST_FORMS, fail_on_recompile_limit_hit=True),
        ):
            yield
    except faults as error:
        raise CannotCompile(
            f"torch.compile fails on this model, so leave compile out for it: {fault(error)}"
        ) from error
    finally:
        for part in parts:
            with suppress(AttributeError):  # the class's own shows again
                delattr(model, part)


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Puts back what torch's compiler leaves changed in torch and Python, so that nobody takes it for the model's doing."""
    limit, methods = sys.getrecursionlimit(), {name: getattr(nn.Module, name) for name in ("__init__", "__setstate__")}
    try:
        with warnings.catch_warnings():  # of what it reads around: caches, which give the same each time
            warnings.filterwarnings("ignore", message="Dynamo ")
            yield
    finally:
        sys.setrecursionlimit(limit)
        for name, method in methods.items():
            setattr(nn.Module, name, method)


def _noted(function: Any) -> Any:
    def call(*inputs: Any, **named: Any) -> Any:
        providers.note(NAME)
        return function(*inputs, **named)

    return call
