"""The released bAbI data, where it is, and two small tasks of the needle."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.released import Story, parse
from tasks.needle import places, task
from tasks.needle.task import COMPACT_DEPTHS, Needle
from tests.support.babi_stories import ARCHIVE, archive


@pytest.fixture(scope="module")
def released() -> dict[str, list[Story]]:
    """All stories of a task, those of the test file under the name with " test"."""
    path = archive()
    if path is None:
        pytest.skip(f"the released bAbI data ({ARCHIVE}) is not here; name it in TITANOMACHY_BABI to compare with it")
    stories: dict[str, list[Story]] = {name + part: [] for name in TASKS for part in ("", " test")}
    with tarfile.open(path) as tar:
        for member in tar:
            name = Path(member.name).name.split("_")[0]
            if name in TASKS and member.isfile():
                found = parse(io.TextIOWrapper(tar.extractfile(member), encoding="ascii").read())
                stories[name] += found
                stories[name + " test"] += found if "_test" in member.name else []
    return stories


@pytest.fixture(scope="module")
def compact() -> Needle:
    return Needle(length=64, test_lengths=(64, 129), samples=4)


@pytest.fixture(scope="module")
def ruler() -> Needle:
    """Of five depths, as the compact one has them."""
    return Needle(
        template="ruler", length=1024, test_lengths=(1024, 2048), samples=2, depths=COMPACT_DEPTHS, words="own"
    )


@pytest.fixture(autouse=True)
def own_lists_and_sentences(monkeypatch):
    """RULER's lists and nltk's sentences, where they are installed, change no test that does not ask for them."""
    monkeypatch.setattr(task, "word_lists_installed", lambda: False)
    monkeypatch.setattr(places, "_punkt", lambda: None)
