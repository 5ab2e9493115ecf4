"""What a forecast needs of a task, from its settings alone: nothing is read of a corpus and nothing is downloaded."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import tasks
from schema.settings import construct
from tasks.text import byte_pair, tokenizer

GPT2 = 50_257  # tokens of GPT-2's vocabulary (Radford et al. 2019)


class Outline(NamedTuple):
    """How many tokens a task's vocabulary has and its training texts are long; None where only a file would say it."""

    vocab: int | None
    length: int | None


def outline(name: str, settings: dict[str, Any]) -> Outline:
    """The outline of a task under these settings; ValueError for an unknown task, setting or type."""
    question = name, repr(settings)
    if os.sep in question[1] or os.path.exists(str(settings.get("tokenizer"))):
        return _outline(name, settings)  # of a file, which may change
    if question not in _known:  # a plan's cells ask the same of a handful of tasks, twice each
        found = _outline(name, settings)
        if found.vocab is None:
            return found
        _known[question] = found
    return _known[question]


_known: dict[tuple[str, str], Outline] = {}


def _outline(name: str, settings: dict[str, Any]) -> Outline:
    cls = tasks.class_of(name)
    tasks.check_settings(name, cls, settings)
    name, settings = tasks.trained(name, settings)
    cls = tasks.class_of(name)
    parameters = inspect.signature(cls).parameters
    if "tokenizer" not in parameters and "corpus" not in parameters:  # a task of symbols: it reads nothing
        task = construct(cls, **settings)
        return Outline(task.vocab, getattr(task, "length", None))
    asked = {setting: settings.get(setting, parameters[setting].default) for setting in ("tokenizer", "length")}
    return Outline(vocabulary(asked["tokenizer"]), asked["length"])


def vocabulary(asked: str) -> int | None:
    """Tokens of the tokenizer of a setting; None for a file that is not here or cannot be read."""
    if asked in (tokenizer.DEFAULT, tokenizer.BYTES.name):
        return tokenizer.BYTES.vocab
    if asked == "gpt2":
        return GPT2
    if match := re.fullmatch(r"bpe:(\d+)", asked):
        return int(match[1])
    path = Path(asked) / "tokenizer.json" if Path(asked).is_dir() else Path(asked)
    try:
        return byte_pair.read(path, path.stat().st_mtime_ns).vocab
    except (OSError, ValueError):
        return None
