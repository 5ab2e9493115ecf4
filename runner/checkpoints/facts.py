"""What `checkpoint.json` says of a checkpoint, held to its types: whoever wrote it, a wrong one is one sentence."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, FiniteFloat
from typing_extensions import TypedDict

import schema
from tasks.harness import tensor_file

SCHEMA = 1
LARGEST = 2**31  # of a size; what memory could hold is asked of the weights
BLOCKS = 16  # times as many blocks as the weights have tensors are more than any model's depth is matched to

Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class CheckpointError(ValueError):
    """A folder that holds no whole checkpoint; the message says what is wrong with it."""


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time needs its zone, as 2026-01-31T12:00:00+00:00")
    return text


class SizeFacts(TypedDict):
    """The size of a cell and what it matches."""

    width: Count
    depth: Count
    heads: Count
    match: NotRequired[str]
    state_bytes: NotRequired[Annotated[int, Field(ge=1)]]
    flops_length: NotRequired[Count]


class TokenizerFacts(TypedDict):
    """The tokenizer of a model's texts; `file` is the hash of the file beside the weights."""

    name: str
    vocab: Count
    separator: Annotated[int, Field(ge=0, le=LARGEST)] | None
    fingerprint: str
    file: NotRequired[str]


class Facts(TypedDict):
    """What a model is and how it came about."""

    __pydantic_config__ = {"extra": "allow"}
    schema: int
    model: str
    settings: dict[str, Any]
    size: SizeFacts
    vocab: Count
    seed: Seed
    task: str
    tokenizer: TokenizerFacts | None
    key: NotRequired[str]
    task_settings: NotRequired[dict[str, Any]]
    lr: NotRequired[FiniteFloat]
    budget: NotRequired[dict[str, Any]]
    dtype: NotRequired[str]
    provider: NotRequired[str]
    device: NotRequired[str]
    parameters: NotRequired[int]
    providers: NotRequired[list[str]]
    model_files: NotRequired[list[str]]
    code_hash: NotRequired[str]
    data_hash: NotRequired[str]
    commit: NotRequired[str]
    dirty: NotRequired[bool]
    versions: NotRequired[dict[str, str]]
    when: NotRequired[Annotated[str, AfterValidator(_moment)]]


def read(path: Path) -> Facts | None:
    """The facts of a file; None where there is none. Raises CheckpointError."""
    try:
        if not path.exists():
            return None
        if not path.is_file():
            raise CheckpointError(f"{path} is no file")
        found = schema.read_json(path, dict[str, Any], error=CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    if found.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} is no checkpoint of this version (schema {SCHEMA})")
    return schema.conform(found, Facts, str(path), error=CheckpointError)


def check_size(facts: Facts, shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Refuse a size that the weights beside it cannot have, before anything of it is built. Raises CheckpointError."""
    numbers = tensor_file.numbers(shapes)
    width, depth = facts["size"]["width"], facts["size"]["depth"]
    if max(width, facts["vocab"]) > numbers or depth > BLOCKS * len(shapes):
        raise CheckpointError(
            f"{folder} says width {width:,}, depth {depth:,} and vocab {facts['vocab']:,}, but its weights are "
            f"{numbers:,} numbers in {len(shapes)} tensors"
        )
    about = facts["tokenizer"]
    if about is not None and about["vocab"] > facts["vocab"]:
        raise CheckpointError(
            f"{folder} says that its tokenizer has {about['vocab']:,} tokens, its model {facts['vocab']:,}"
        )
