"""Named tensors with a few facts in one safetensors file: there whole or not at all, and a damaged one is told."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


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
        save_file(plain, unfinished, metadata={"facts": json.dumps(facts), "digest": digest(plain)})
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except SafetensorError as error:  # how the library reports what the disk refused
        raise OSError(str(error)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the facts. Raises FileNotFoundError; Damaged for content that was not written so."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            written = file.metadata()["digest"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged ({type(error).__name__})") from error
    if digest(tensors) != written:
        raise Damaged(f"{path} is damaged (other content than was written)")
    return tensors, facts


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and numbers of tensors on the CPU."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
    return found.hexdigest()
