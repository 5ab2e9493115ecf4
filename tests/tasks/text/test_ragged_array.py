"""Texts and tokens that are mapped from files: the same as in memory, and larger than memory may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schema.places import ROOT
from tasks.text import cache
from tasks.text.corpus import documents
from tasks.text.ragged_array import Parted, RaggedWriter

UINT16 = np.dtype(np.uint16)
PARTS = [np.array(part, np.int64) for part in ([5, 6, 7], [], [300], [1, 2])]


@pytest.mark.parametrize("parts", [PARTS, []])
def test_parts_are_the_same_in_memory_and_mapped_from_a_file(parts, tmp_path):
    with RaggedWriter(tmp_path / "tokens", 9, UINT16) as out:
        out.extend(parts)
    for found in (Parted.of(parts, 9, UINT16), Parted.mapped(tmp_path / "tokens", UINT16)):
        assert [part.tolist() for part in found] == [part.tolist() for part in parts]
        assert found.lengths.tolist() == [len(part) for part in parts]
        assert found.flat.tolist() == [token for part in parts for token in (9, *part)]
        assert all(found.flat[start] == 9 for start in found.starts[:-1]) and found.flat.dtype == UINT16
        with pytest.raises(IndexError):
            found[len(parts)]


def test_nothing_is_copied_and_nothing_can_be_written(tmp_path):
    with RaggedWriter(tmp_path / "tokens", 9, UINT16) as out:
        out.extend(PARTS)
    for found in (Parted.of(PARTS, 9, UINT16), Parted.mapped(tmp_path / "tokens", UINT16)):
        assert np.shares_memory(found[0], found.flat)
        with pytest.raises(ValueError):
            found[0][0] = 1


def test_what_was_not_written_whole_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path))

    def broken(path: Path) -> None:
        path.mkdir()
        (path / "half").write_text("a half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        cache.kept("corpora/mine", broken)
    assert [file.suffix for file in (tmp_path / "corpora").iterdir()] == [".lock"]
    (tmp_path / "corpora" / (cache.UNFINISHED + "mine")).mkdir()  # left by a process that was killed
    whole = cache.kept("corpora/mine", lambda path: path.mkdir())
    assert whole.is_dir() and not list(whole.iterdir())


def test_only_the_latest_version_of_a_users_text_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mine.jsonl"
    for word in ("first", "second, longer"):
        file.write_text("\n".join(json.dumps({"id": i, "text": f"{word} {i}"}) for i in range(3)))
        assert documents("test", str(file))[0].text.startswith(word)
    folders = [path for path in (tmp_path / "cache").glob("corpora/*/*") if path.is_dir()]
    assert len(folders) == 1 and b"second" in (folders[0] / "train.texts").read_bytes()


MEMORY = """
import resource, sys
from tasks.language_modelling.task import LanguageModelling

def held(): # KiB of memory of the process's own: what is mapped from files does not count
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])

limit = (held() << 10) + (48 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for is_crossed in (False, True):
    task = LanguageModelling(sys.argv[1], 256, (256, 1024), cross_documents=is_crossed)
    assert task.training(0, 0, 0.0, 16384).tokens.shape == (64, 256)
    exams = list(task.exams("test"))
    assert sum(e.batch.targets.numel() for e in exams if e.batch.where["length"] == 256) == 65536
    del task, exams
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads how much memory a process has from /proc")
def test_a_corpus_needs_no_memory_for_its_size(tmp_path):
    """96 MB of text are prepared, drawn from and scored with 48 MB, its texts apart and then crossed."""
    line = "The ship went on under a light wind, and nothing was seen of the whale. " * 32
    with (tmp_path / "large.jsonl").open("w") as file:
        for number in range(96 * 2**20 // len(line)):
            file.write(json.dumps({"id": number, "text": f"{number} {line}"}) + "\n")
    settings = {"TITANOMACHY_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "large.jsonl")]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
