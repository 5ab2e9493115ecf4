"""A user's texts: no text in two splits, what names tell, copies, encodings, line ends, and what is no text at all."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.text import archives, corpus, tokenizer
from tasks.text import files as corpus_files
from tasks.text.corpus import documents
from tasks.text.splits import Document, Found, assign, cut, fingerprint, told_by_name

pytestmark = pytest.mark.filterwarnings("ignore:The corpus .* more than once")


def _all(path) -> dict[str, list[Document]]:
    return {split: list(documents(split, str(path))) for split in corpus.SPLITS}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.text("ab \n\r\t", min_size=1, max_size=4),
            st.sampled_from([None, "train", "validation", "test", "evaluation"]),
            st.sampled_from([None, "train", "Test", "eval", "dev"]),
        ),
        max_size=14,
    ),
    st.booleans(),
)
def test_no_text_is_in_two_splits(rows, cutting):
    found = [Found(Document(str(i), text), told, named) for i, (text, named, told) in enumerate(rows)]
    if cutting:
        parts = list(cut(found))
        assert len({d.id.split("[")[0] for _, d in parts}) <= len({fingerprint(text) for text, *_ in rows})
        return
    try:
        assigned = list(assign("mine", lambda: found))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    texts = [" ".join(document.text.split()) for _, document in assigned]
    assert len(set(texts)) == len(texts)  # once, in one split
    assert {split for split, _ in assigned} == set(corpus.SPLITS)
    assert set(texts) == {" ".join(text.split()) for text, *_ in rows}  # none is lost


def test_a_copy_is_told_and_leaves_the_held_out_text_where_it_is(tmp_path):
    lines = [{"split": split, "text": f"{split} {i}"} for split in corpus.SPLITS for i in range(3)]
    lines += [{"split": "train", "text": " test\r\n1\n"}, {"split": "validation", "text": "test 1"}]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.warns(UserWarning, match="holds 2 text.* more than once: each is read once"):
        found = _all(tmp_path / "mine.jsonl")
    assert {split: [d.text for d in found[split]] for split in found} == {
        split: [f"{split} {i}" for i in range(3)] for split in corpus.SPLITS
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train": 8, "eval": 8}, {"train": {"train"}, "validation": {"eval"}, "test": {"eval"}}),
        ({"train": 8, "test": 8}, {"train": {"train"}, "validation": {"train"}, "test": {"test"}}),
        ({"train": 8, "valid": 8}, {"train": {"train"}, "validation": {"valid"}, "test": {"valid"}}),
        ({"train": 8, "dev": 2, "eval": 3}, {"train": {"train"}, "validation": {"dev"}, "test": {"eval"}}),
        ({"TRAIN": 8, "eval": 2, "test": 3}, {"train": {"TRAIN"}, "validation": {"eval"}, "test": {"test"}}),
        ({"train-00000-of-00001": 8, "set/dev/a": 2, "my_test": 1}, {"validation": {"set"}, "test": {"my_test"}}),
        ({"train": 8, "eval": 1}, "add a file for test"),
        ({"train": 8, "eval": 8, "more": 3}, "others that tell none .'more.jsonl:1'"),
    ],
)
def test_names_of_files_are_followed_or_refused(tmp_path, files, expected):
    for name, count in files.items():
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(json.dumps({"text": f"{name} {i}"}) for i in range(count)))
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            _all(tmp_path)
        return
    found = _all(tmp_path)
    for split, names in expected.items():
        assert {d.id.split(".")[0].split("/")[0] for d in found[split]} == names
    assert sum(map(len, found.values())) == sum(files.values())


def test_a_title_with_a_word_of_a_split_moves_nothing(tmp_path):
    for name in ("the_test_of_time", "emma", "persuasion", "moby_dick"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert sum(map(len, _all(tmp_path).values())) == 4
    assert told_by_name("test-suite/train.txt") == "train" and told_by_name("train_test.txt") is None


def test_hidden_files_and_backups_are_no_documents(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(name * 9)
    (tmp_path / ".git").mkdir()
    for name in ("a.txt.bak", "a.txt~", "#a.txt#", ".a.txt.swp", ".git/a.txt", "a.txt.orig", "._b.txt"):
        (tmp_path / name).write_text(f"older {name}")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert sorted(d.id for found in _all(tmp_path).values() for d in found) == [f"{name}.txt:0" for name in "abcd"]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
        for name in ("a.txt", "b.txt", "c.txt", "__MACOSX/._a.txt", ".hidden/a.txt", "a.txt.bak"):
            out.writestr(name, f"text of {name}")
    assert sorted(d.id for found in _all(tmp_path / "set.zip").values() for d in found) == [
        "a.txt:0",
        "b.txt:0",
        "c.txt:0",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_marks_and_line_ends_of_other_systems_change_nothing(tmp_path, end, mark):
    wiki = "".join(f" = Title {i} = \n \n Words of {i} . \n" for i in range(4))
    text = "\n<|endoftext|>\n".join(f"part {i}\nin lines" for i in range(4))
    records = "\n".join(json.dumps({"text": f"text {i}\nin lines"}) for i in range(4)) + "\n"
    for name, content in (("wiki.tokens", wiki), ("a.txt", text), ("a.jsonl", records)):
        (tmp_path / name).write_bytes((mark + content.replace("\n", end)).encode())
        found = [d.text for split in _all(tmp_path / name).values() for d in split]
        assert len(found) == 4 and not any("\r" in each or "\ufeff" in each for each in found)
        assert all("\n" in each for each in found)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings_are_refused_in_one_sentence(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(("Käse and whales. " * 50).encode(encoding))
    with pytest.raises(ValueError, match="cannot be read as UTF-8 text") as error:
        _all(tmp_path / "a.txt")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"text": None}, "text must be text, not None"),
        ({"text": ["a"]}, "text must be text, not"),
        ({"text": "a", "split": ["test"]}, "split must be text"),
        ({"text": "a", "id": {"x": 1}}, "no JSON object with a 'text'"),
        ({"text": "a", "id": "\ud800"}, "it is no JSON, or no text"),
        ("text", "it must be a table"),
        (None, "it must be a table"),
    ],
)
def test_a_record_of_another_type_is_told_by_its_number(tmp_path, line, sentence):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n\n' + json.dumps(line))
    with pytest.raises(ValueError, match="^Record 2 of .*a.jsonl' is no JSON object") as error:
        _all(tmp_path / "a.jsonl")
    assert sentence in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "b.jsonl").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="Record 1 of"):
        _all(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    "name", ["a.tar", "a.tar.gz", "a.zip", "a.txt.gz", "a.txt.xz", "a.txt.bz2", "a.tgz", "a.jsonl"]
)
@pytest.mark.parametrize("size", [0, 20_000])
def test_random_bytes_are_refused_in_one_sentence(tmp_path, name, size):
    (tmp_path / name).write_bytes(random.Random(0).randbytes(size))
    with pytest.raises(ValueError) as error:
        _all(tmp_path / name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400 and name in str(error.value)


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.xz", "bomb.txt.gz", "sparse.tar"])
def test_what_unpacks_without_end_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "HARMLESS", 2**20)
    text, file = b"a" * 2**25, tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("a.txt", text)
    elif name.endswith(".gz"):
        import gzip

        file.write_bytes(gzip.compress(text))
    else:
        with tarfile.open(file, "w:xz" if name.endswith("xz") else "w") as out:
            entry = tarfile.TarInfo("a.txt")
            entry.size = len(text)
            if name == "sparse.tar":
                entry.size, entry.type = 0, tarfile.GNUTYPE_SPARSE
                header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
                header[386:410] = b"%011o\0%011o\0" % (2**27, 0)  # a hole as large as the member
                header[483:495] = b"%011o\0" % 2**27
                header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
                out.fileobj.write(bytes(header))
                out.offset += len(header)
            else:
                out.addfile(entry, io.BytesIO(text))
    with pytest.raises(ValueError, match="unpacks to more than 100 times its size") as error:
        _all(file)
    assert "\n" not in str(error.value)


def test_a_packed_archive_is_read_a_member_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "IN_MEMORY", 100)
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as out:
        for name in ("b.txt", "a.txt", "c.jsonl"):
            content = json.dumps({"text": "text of c"}).encode() if name == "c.jsonl" else f"text of {name}".encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("z.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    found = list(corpus_files.read(tmp_path / "set.tar.gz"))
    assert [each.document.id for each in found] == ["a.txt:0", "b.txt:0", "c.jsonl:1"]


def test_a_memory_that_does_not_hold_a_text_is_told(tmp_path, monkeypatch):
    def full(_):
        raise MemoryError

    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setattr(corpus_files, "parted", full)
    with pytest.raises(ValueError, match="one text is larger than the memory"):
        _all(tmp_path / "a.txt")


def test_what_is_neither_file_nor_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as one:
        home = os.getcwd()
        os.chdir(tmp_path)  # a socket's path is short
        one.bind("s")
        os.chdir(home)
    for path in ("pipe", "loop", "s", "a" * 5000, "a\0b", "nowhere"):
        with pytest.raises(ValueError, match="is not there|neither a file nor a folder") as error:
            documents("train", str(tmp_path / path))
        assert "\n" not in str(error.value) and len(str(error.value)) < 500
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            documents("train", device)


@pytest.mark.parametrize("empty", ["", " ", "#cut"])
def test_an_empty_name_is_not_the_folder_that_one_stands_in(tmp_path, monkeypatch, empty):
    (tmp_path / "notes.txt").write_text("not meant")
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="The corpus is empty: name a file, a folder"):
        documents("train", empty)
    with pytest.raises(ValueError, match="There is no tokenizer"):
        tokenizer.create(empty)
