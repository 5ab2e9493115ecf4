"""Trained models on the disk: weights, what they are and how they were trained, in a folder each.

from runner.checkpoints.store import load
trained = load(".cache/checkpoints/0123456789abcdef")
logits, state = trained.model(tokens)
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import schema
import tasks
from models import language_model, registry, user_file
from models.matching.shapes_only import shapes_only
from runner.build import terms, with_provider
from runner.cell_key import code_of_training
from runner.checkpoints.facts import SCHEMA, CheckpointError, Facts, TokenizerFacts, check_size, read
from runner.checkpoints.model_files import among
from schema import whole_file
from tasks.harness import snapshots, tensor_file
from tasks.harness.train import Training
from tasks.text import cache
from tasks.text.byte_pair import JsonTokenizer
from tasks.text.tokenizer import BYTES, Tokenizer

__all__ = ("Checkpoint", "CheckpointError", "default_folder", "fill", "load", "read_facts", "read_training", "save")

WEIGHTS, LOSSES, TOKENIZER, FACTS = "weights.safetensors", "losses.safetensors", "tokenizer.json", "checkpoint.json"
SNAPSHOT = "snapshot.safetensors"  # of a training that goes on


class Checkpoint(NamedTuple):
    """A trained model with the tokenizer of its texts (None where its tokens are symbols) and the facts of `checkpoint.json`."""

    model: nn.Module
    tokenizer: Tokenizer | None
    facts: Facts


def default_folder() -> Path:
    """Where checkpoints are kept unless somebody says otherwise."""
    return cache.folder() / "checkpoints"


def load(
    folder: str | Path, provider: str = "auto", device: str = "cpu", model_files: Sequence[str | Path] = ()
) -> Checkpoint:
    """The trained model of a checkpoint's folder, ready to be asked, on `device`.

    `provider` is what computes, unless the model was trained under a setting that says so. `model_files` are the user's own
    files, imported before; one that the folder names is imported only where the user has named it here before. Warns of a
    model that other code trained than is here. Raises CheckpointError for a folder without a whole checkpoint, and for a
    model that is registered nowhere here; what `models.language_model.build` raises for settings that it does not have.
    """
    folder = Path(folder)
    facts = _sound(read_facts, folder)
    if facts is None:
        raise CheckpointError(f"There is no checkpoint in {folder}; give a folder that holds a {FACTS}.")
    user_file.load_files(model_files)
    if _absent(facts):  # its own file, if the user of this machine has ever named it
        user_file.load_files(among(facts.get("model_files", [])))
    if _absent(facts):
        raise CheckpointError(_unregistered(folder, facts))
    _warn_of_other_code(folder, facts)
    shapes = _sound(_shapes, folder)
    _sound(check_size, facts, shapes, folder)
    _sound(_fits, _unbuilt(folder, facts, provider), shapes, folder)
    model = _build(facts, provider)
    _sound(fill, model, folder)
    return Checkpoint(model.to(device).eval(), _sound(_tokenizer, folder, facts["tokenizer"]), facts)


def _absent(facts: Facts) -> list[str]:
    """What is not registered here: the model, or mixers that it is made of."""
    known = registry.names()
    built = registry.together(facts["model"], facts["settings"]) if facts["model"] in known else [facts["model"]]
    return [name for name in built if name not in known]


def _unregistered(folder: Path, facts: Facts) -> str:
    files = ", ".join(map(schema.shortened, facts.get("model_files", []))) or "another version of this project"
    return (
        f"{folder} holds the model {schema.shortened(_absent(facts)[0])}, which is not registered here; when it was trained "
        f"it was registered in {files}. A folder of data runs no code: name that file by --models FILE.py, or in Python call "
        "models.user_file.load_file(FILE) before."
    )


def _warn_of_other_code(folder: Path, facts: Facts) -> None:
    """A checkpoint under other code than trained it gives scores that belong to neither."""
    if "code_hash" not in facts:
        return
    task = tasks.classes().get(facts["task"])
    if task is None:
        raise CheckpointError(f"{folder} was trained on {schema.shortened(facts['task'])}, which is no task here.")
    now = code_of_training(facts["model"], task, facts.get("budget", {}), facts["settings"])
    if now != facts["code_hash"]:
        then = f" (commit {facts['commit'][:8]})" if facts.get("commit") else ""
        warnings.warn(
            f"{folder} was trained by other code than is here: {facts['model']}, {facts['task']} or what they use has "
            f"changed since{then}, so what it answers now is not what was trained; train it anew by its comparison.",
            stacklevel=3,
        )


def _build(facts: Facts, provider: str) -> nn.Module:
    size, match = terms(facts["size"], facts["vocab"])
    settings = with_provider(facts["model"], facts["settings"], provider)
    return language_model.seeded(facts["model"], size, facts["seed"], match=match, **settings)


def _unbuilt(folder: Path, facts: Facts, provider: str) -> nn.Module:
    """The model without memory for its weights, so that an absurd size costs none."""
    try:
        with shapes_only():
            return _build(facts, provider)
    except (RuntimeError, OverflowError, MemoryError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no model that can be built: {schema.fault(error)}.") from None


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return _read(tensor_file.shapes, folder / WEIGHTS)


def _sound(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).rstrip('.')}; run its comparison again, which trains it anew.") from None


def read_facts(folder: str | Path) -> Facts | None:
    """What a checkpoint says of itself; None where there is none. Raises CheckpointError."""
    return read(Path(folder) / FACTS)


def fill(model: nn.Module, folder: str | Path) -> None:
    """Give a model the weights of a checkpoint. Raises CheckpointError for those of another shape, and damaged ones."""
    weights, _ = _read(tensor_file.read, Path(folder) / WEIGHTS)
    _fits(model, {name: tuple(tensor.shape) for name, tensor in weights.items()}, Path(folder))
    model.load_state_dict(weights)


def _fits(model: nn.Module, shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    if shapes != {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}:
        raise CheckpointError(f"{folder / WEIGHTS} holds the weights of another model")


def read_training(folder: str | Path) -> Training:
    """How the model of a checkpoint was trained; whoever watches is told the losses. Raises CheckpointError."""
    training = _read(_training, Path(folder) / LOSSES)
    snapshots.tell_losses(training.losses)
    return training


def _training(path: Path) -> Training:
    return Training(*tensor_file.losses(path, *tensor_file.read(path)))


def save(
    folder: Path, model: nn.Module, tokenizer: Tokenizer | None, training: Training, facts: dict[str, Any]
) -> None:
    """Keep a trained model; the folder counts as a checkpoint from its last file on, `checkpoint.json`. Raises OSError."""
    snapshots.tell_losses(training.losses)
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
        content = tokenizer.inner.to_str()
        about["file"] = hashlib.sha256(content.encode()).hexdigest()
        whole_file.write(folder / TOKENIZER, content.encode("utf-8"))
    text = json.dumps({"schema": SCHEMA, **facts, "tokenizer": about}, indent=1, allow_nan=False)
    whole_file.write(folder / FACTS, text.encode("utf-8"))


def _tokenizer(folder: Path, about: TokenizerFacts | None) -> Tokenizer | None:
    if about is None or about["name"] == BYTES.name:
        return BYTES if about else None
    path = folder / TOKENIZER
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}, the model's tokenizer, is no file")
    try:
        content = schema.read_text(path, error=CheckpointError)
        tokenizer = JsonTokenizer(about["name"], content)
    except OSError as error:
        raise CheckpointError(f"{path}, the model's tokenizer, cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise CheckpointError(str(error).rstrip(".")) from None
    digest = hashlib.sha256(content.encode()).hexdigest()
    if tokenizer.vocab != about["vocab"] or about.get("file", digest) != digest:
        raise CheckpointError(f"{path} is not the tokenizer that the model was trained with")
    return tokenizer


def _read(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or 'no such file'})") from None
    except tensor_file.Damaged as error:
        raise CheckpointError(f"{error}") from None
