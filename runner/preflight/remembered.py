"""What dry runs found out of the house's models, kept on this machine: to build models is most of what they do.

An answer counts while the code is the same, which sizes and times of files tell. Without `kept`, all is asked anew.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from models import registry, user_file
from schema import whole_file
from schema.places import ROOT, cache_folder

FILE = "forecasts.json"  # in the cache's folder, which may be emptied at any time
LOCK_SECONDS = 5.0
CODE = tuple(ROOT / name for name in ("models", "baselines", "tasks", "runner", "results", "schema"))


@dataclass
class _Memory:
    """Answers by question, each with the stamp of what it was found from."""

    answers: dict[str, list[Any]]
    news: set[str] = field(default_factory=set)  # questions that were answered here


_current: list[_Memory] = []


@contextmanager
def kept() -> Iterator[None]:
    """Inside, what was answered before is not asked again, and what is new is written at the end, whatever ended it."""
    path = cache_folder() / FILE
    memory = _Memory(_read(path))
    _current.append(memory)
    try:
        yield
    finally:
        _current.remove(memory)
        if memory.news:
            with suppress(OSError, Timeout):  # a cache that cannot be written costs time alone
                path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
                    whole_file.write(path, json.dumps(_read(path) | memory.answers).encode())


def of_model(what: str, model: str, settings: Mapping[str, Any], asked: Any, find: Callable[[], Any]) -> Any:
    """What `find` gives, in JSON's types, or gave to the same question of the same model; of a user's models nothing is kept.

    What warns is not kept either, so that it warns again.
    """
    if not _current or not is_of_the_house(model, settings):
        return find()
    return _unless_warned(f"{what}: {model} {dict(settings)!r} {asked!r}", _code(), find)


def of_code(what: str, find: Callable[[], Any]) -> Any:
    """What `find` reads in the checkout's code alone, or read in it as long as no file of it has changed."""
    return of_stamped(what, _code(), find) if _current else find()


def of_file(what: str, path: Path, find: Callable[[], Any]) -> Any:
    """What `find` reads in a file, in JSON's types, or read in it as long as it has not changed; what warns warns again."""
    if not _current:
        return find()
    stat = path.stat() if path.exists() else None
    return _unless_warned(f"{what}: {path}", f"{_code()} {stat and (stat.st_size, stat.st_mtime_ns)}", find)


def _unless_warned(question: str, stamp: str, find: Callable[[], Any]) -> Any:
    """`of_stamped` that keeps nothing of what warns."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answer = of_stamped(question, stamp, find, keep=lambda: not told)
    for one in told:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return answer


def news() -> dict[str, list[Any]]:
    """What was answered here and not known before, told once, for `learn` of another process."""
    memory = _current[-1]
    told = {question: memory.answers[question] for question in memory.news}
    memory.news.clear()
    return told


def learn(answers: dict[str, list[Any]]) -> None:
    """Know what another process has answered."""
    memory = _current[-1]
    memory.answers |= answers
    memory.news |= set(answers)


def of_stamped(question: str, stamp: str, find: Callable[[], Any], keep: Callable[[], bool] = lambda: True) -> Any:
    """The answer that is known under this stamp, else what `find` gives, which is kept if `keep` says so afterwards."""
    memory = _current[-1]
    before = memory.answers.get(question)
    if before and before[0] == stamp:
        return before[1]
    answer = find()
    if keep():
        memory.answers[question] = [stamp, answer]
        memory.news.add(question)
    return answer


def _read(path: Path) -> dict[str, list[Any]]:
    """The answers in a file; none where it is absent, damaged or another program's."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(found, dict) and all(isinstance(one, list) and len(one) == 2 for one in found.values())
    return found if is_ours else {}


def is_of_the_house(model: str, settings: Mapping[str, Any]) -> bool:
    """Whether no file of the user's has a part in a model; answers about any other are not kept."""
    try:
        return not user_file.files_of(registry.together(model, settings))
    except Exception:  # settings that name no layers are refused where the model is built, in a sentence
        return False


@cache
def _code() -> str:
    """What tells one state of the checkout's code, and one torch, from another."""
    files: Collection[Path] = sorted(
        path for folder in CODE for suffix in ("py", "c", "h") for path in folder.rglob(f"*.{suffix}")
    )
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(f"{torch.__version__} {stats}".encode()).hexdigest()
