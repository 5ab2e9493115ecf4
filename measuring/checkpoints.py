"""Trained models on the disk: weights, what they are and how they were trained, in a folder each.

from measuring.checkpoints import load
trained = load(".cache/checkpoints/0123456789abcdef")
logits, state = trained.model(tokens)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from measuring.building import terms, with_provider
from models import language_model, registry, user_file
from tasks import cache, tensor_file
from tasks.byte_pair import JsonTokenizer
from tasks.tokenizer import BYTES, Tokenizer
from tasks.train import Training

SCHEMA = 1
WEIGHTS, LOSSES, TOKENIZER, FACTS = "weights.safetensors", "losses.safetensors", "tokenizer.json", "checkpoint.json"
SNAPSHOT = "snapshot.safetensors"  # of a training that goes on


class CheckpointError(ValueError):
    """A folder that holds no whole checkpoint; the message says what is wrong with it."""


class Checkpoint(NamedTuple):
    """A trained model with the tokenizer of its texts (None where its tokens are symbols) and the facts of `checkpoint.json`."""

    model: nn.Module
    tokenizer: Tokenizer | None
    facts: dict[str, Any]


def default_folder() -> Path:
    """Where checkpoints are kept unless somebody says otherwise."""
    return cache.folder() / "checkpoints"


def load(folder: str | Path, provider: str = "auto", device: str = "cpu") -> Checkpoint:
    """The trained model of a checkpoint's folder, ready to be asked, on `device`.

    `provider` is what computes, unless the model was trained under a setting that says so. Raises CheckpointError for a folder
    without a whole checkpoint; what `models.language_model.build` raises for a model that is not registered here.
    """
    facts = _sound(read_facts, folder)
    if facts is None:
        raise CheckpointError(f"There is no checkpoint in {folder}; give a folder that holds a {FACTS}.")
    for file in facts["model_files"]:
        if facts["model"] not in registry.names():
            user_file.load_file(file)
    size, match = terms(facts["size"], facts["vocab"])
    settings = with_provider(facts["model"], facts["settings"], provider)
    model = language_model.seeded(facts["model"], size, facts["seed"], match=match, **settings)
    _sound(fill, model, folder)
    return Checkpoint(model.to(device).eval(), _tokenizer(Path(folder), facts["tokenizer"]), facts)


def _sound(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; run its comparison again, which trains it anew.") from None


def read_facts(folder: str | Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None where there is none. Raises CheckpointError."""
    path = Path(folder) / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__})") from None
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} is no checkpoint of this version (schema {SCHEMA})")
    return facts


def fill(model: nn.Module, folder: str | Path) -> None:
    """Give a model the weights of a checkpoint. Raises CheckpointError for those of another shape, and damaged ones."""
    weights, _ = _read(Path(folder) / WEIGHTS)
    own = model.state_dict()
    if {name: tensor.shape for name, tensor in weights.items()} != {name: t.shape for name, t in own.items()}:
        raise CheckpointError(f"{Path(folder) / WEIGHTS} holds the weights of another model")
    model.load_state_dict(weights)


def read_training(folder: str | Path) -> Training:
    """How the model of a checkpoint was trained. Raises CheckpointError."""
    tensors, facts = _read(Path(folder) / LOSSES)
    return Training(tensors["losses"].tolist(), facts["tokens"], facts["seconds"])


def save(
    folder: Path, model: nn.Module, tokenizer: Tokenizer | None, training: Training, facts: dict[str, Any]
) -> None:
    """Keep a trained model; the folder counts as a checkpoint from its last file on, `checkpoint.json`. Raises OSError."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)
    tensor_file.write(folder / WEIGHTS, model.state_dict(), {"model": facts["model"]})
    losses = torch.tensor(training.losses, dtype=torch.float64)
    tensor_file.write(folder / LOSSES, {"losses": losses}, {"tokens": training.tokens, "seconds": training.seconds})
    about = None
    if tokenizer is not None:
        about = {name: getattr(tokenizer, name) for name in ("name", "vocab", "separator", "fingerprint")}
    if isinstance(tokenizer, JsonTokenizer):
        _write(folder / TOKENIZER, tokenizer.inner.to_str())
    _write(folder / FACTS, json.dumps({"schema": SCHEMA, **facts, "tokenizer": about}, indent=1, allow_nan=False))


def _tokenizer(folder: Path, about: dict[str, Any] | None) -> Tokenizer | None:
    if about is None or about["name"] == BYTES.name:
        return BYTES if about else None
    path = folder / TOKENIZER
    try:
        return JsonTokenizer(about["name"], path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}, the model's tokenizer, cannot be read: {error.strerror}.") from None


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        return tensor_file.read(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except tensor_file.Damaged as error:
        raise CheckpointError(f"{error}") from None


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name("unfinished-" + path.name)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
