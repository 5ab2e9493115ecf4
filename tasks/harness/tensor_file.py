"""Named tensors with a few facts in one safetensors file: there whole or not at all, and a damaged one is told."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

import schema


class About(TypedDict):
    """What stands in the file's own metadata: texts, the facts as JSON."""

    facts: str
    digest: str


class TrainingFacts(TypedDict):
    """The facts of a training in a file."""

    tokens: Annotated[int, Field(ge=0)]
    seconds: Annotated[FiniteFloat, Field(ge=0)]


class Damaged(ValueError):
    """A file whose tensors are not those that were written; the message names it."""


def write(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON-ready facts; the file at `path` is replaced when all is on the disk. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name("unfinished-" + path.name)
    # copies, as the format knows no tensors that share memory
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        told = json.dumps(facts)
        save_file(plain, unfinished, metadata={"facts": told, "digest": digest(plain, told)})
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except SafetensorError as error:  # how the library reports what the disk refused
        raise OSError(str(error)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the facts. Raises FileNotFoundError; Damaged for content that was not written so."""
    with _opened(path) as file:
        about = schema.conform(file.metadata(), About, "its facts")
        facts = schema.parse_json(about["facts"], dict[str, Any], "facts")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        same = digest(tensors, about["facts"]) == about["digest"]
    if not same:
        raise Damaged(f"{path} is damaged (other content than was written)")
    return tensors, facts


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors, which are not read. Raises FileNotFoundError, Damaged."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def losses(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> tuple[list[float], int, float]:
    """What a file says of a training: the losses of its steps, the tokens and the seconds that it took. Raises Damaged."""
    found = tensors.get("losses")
    told = schema.conform(facts, TrainingFacts, str(path), error=Damaged)
    if found is None or found.dim() != 1 or not found.is_floating_point():
        raise Damaged(f"{path} is damaged (no losses)")
    return found.tolist(), told["tokens"], told["seconds"]


def numbers(found: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers tensors of these shapes hold."""
    return sum(map(math.prod, found.values()))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file of the library; whatever in it is not as the library or we write it is Damaged."""
    if Path(path).exists() and not Path(path).is_file():
        raise Damaged(f"{path} is no file")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise Damaged(f"{path} is damaged ({type(error).__name__})") from error


def digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """A hash of names, types, shapes and numbers of tensors on the CPU, and of the facts' text."""
    found = hashlib.sha256(f"{facts}\0".encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
    return found.hexdigest()
