"""Documents out of files: plain text, JSON lines, compressed or not, and folders and archives of such files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NotRequired

from typing_extensions import TypedDict

import schema
from tasks.text.archives import ARCHIVES, COMPRESSIONS, ending, members, opened, zstandard_errors
from tasks.text.splits import Document, Found, told_by_name

TEXT_FILES = (".txt", ".text", ".md", ".jsonl", ".tokens", ".raw")
SEPARATOR = re.compile(r"^<\|endoftext\|>\s*$", re.MULTILINE)
TITLE = re.compile(r"^ ?= [^=\n]+ = *$", re.MULTILINE)  # where an article of WikiText begins
OPENING = re.compile(r"\s*= [^=\n]+ = *$", re.MULTILINE)
MARK = "\ufeff"  # the byte order mark that Windows writes; no text
ASIDE = ("__MACOSX",)  # folders of an archive that hold no documents, beside hidden ones
UNREADABLE = (
    OSError, EOFError, LZMAError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError, zlib.error, struct.error,
    RuntimeError, NotImplementedError, MemoryError,
)  # fmt: skip


class Record(TypedDict):
    """One line of a JSON lines file; what else stands in it is not looked at."""

    text: str
    id: NotRequired[str | int | float | None]
    split: NotRequired[str | None]


def listed(path: Path) -> list[Path]:
    """The file itself, or the text files below a folder in the order of their names; ValueError for a folder without any.

    Hidden files and folders (of editors, of Jupyter) and backups (book.txt.bak, book.txt~) are no documents.
    """
    if path.is_file():
        return [path]
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
    files = {name: file for name, file in found.items() if is_text(name) and file.is_file()}
    if not files:
        raise ValueError(f"The folder '{path}' holds no text: put {', '.join(TEXT_FILES)} files into it.")
    return [files[name] for name in sorted(files)]


def is_text(name: str) -> bool:
    """Whether a file of a folder or an archive is a document by its name: its last ending, compression aside, is a text's."""
    parts = PurePosixPath(name).parts
    if any(part.startswith(".") or part in ASIDE for part in parts if part not in (".", "..")):
        return False
    return ending(name, (*COMPRESSIONS, *ARCHIVES)) in TEXT_FILES


def read(path: Path, sha256: str | None = None) -> Iterator[Found]:
    """The documents of a file, a folder or an archive, with the splits that they tell; those without text are left out.

    Files of JSON lines are read one line at a time; of other files one is held in memory at a time.
    Raises ValueError for what is damaged (its sha256 is not the one given) or is no UTF-8 text.
    """
    if path.is_file():
        yield from _file(path, "", sha256)
        return
    for file in listed(path):
        yield from _file(file, file.relative_to(path).as_posix() + ":")


def _file(file: Path, prefix: str, sha256: str | None = None) -> Iterator[Found]:
    try:
        with file.open("rb") as raw:
            if sha256 is not None:
                _check(file, raw, sha256)
            if ending(file.name, COMPRESSIONS) in ARCHIVES:
                yield from _archive(file, raw, prefix)
            else:
                size = file.stat().st_size
                yield from _documents(prefix, prefix.rstrip(":") or file.name, raw, str(file), size)
    except (*UNREADABLE, *zstandard_errors()) as error:
        raise ValueError(f"The corpus '{file}' cannot be read as UTF-8 text ({_reason(error)}).") from error


def _reason(error: BaseException) -> str:
    """What is wrong in a line, with what to do."""
    if isinstance(error, MemoryError):
        return "one text is larger than the memory: part it into documents, as lines of a .jsonl file"
    if isinstance(error, tarfile.ReadError):
        return "it is no tar archive, or not compressed as its ending says: repair or rename it"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said[:200]}: repair or convert it"


def _check(file: Path, raw: BinaryIO, sha256: str) -> None:
    """ValueError for content of another sha256; `raw` is at its beginning again."""
    if hashlib.file_digest(raw, "sha256").hexdigest() != sha256:
        raise ValueError(
            f"The corpus '{file}' is damaged (its sha256 is not {sha256}): restore it from the repository."
        )
    raw.seek(0)


def _archive(file: Path, raw: BinaryIO, prefix: str) -> Iterator[Found]:
    """The documents of each text file in an archive, in the order of their names."""
    with members(file, raw, is_text) as found:
        if not found:
            raise ValueError(f"The archive '{file}' holds no text: put {', '.join(TEXT_FILES)} files into it.")
        for name, size, open_member in found:
            source = f"{file}:{name}" if len(found) > 1 else str(file)
            with open_member() as content:
                yield from _documents(f"{prefix}{name}:", name, content, source, size)


def _documents(prefix: str, name: str, raw: BinaryIO, source: str, size: int) -> Iterator[Found]:
    """The documents of one text file whose bytes, `size` of them, `raw` gives."""
    plain = io.BufferedReader(opened(name, raw, size, source))
    _refuse_wide(plain, source)
    lines = io.TextIOWrapper(plain, encoding="utf-8-sig", newline=None)  # every kind of line end is read as \n
    if ending(name, COMPRESSIONS) == ".jsonl":
        yield from _records(prefix, name, lines, source)
        return
    for number, part in enumerate(parted(lines.read())):
        if part := part.removeprefix("\n").removeprefix(MARK).strip("\n"):
            yield Found(Document(f"{prefix}{number}", part), named=told_by_name(name))


def _refuse_wide(plain: io.BufferedReader, source: str) -> None:
    """ValueError for UTF-16 and UTF-32, with or without their marks: every second byte of plain letters is 0 in them."""
    begin = plain.peek(4096)[:4096]
    halves = [begin[at::2] for at in (0, 1)]
    zeros = sorted(half.count(0) / max(1, len(half)) for half in halves)
    marked = begin.startswith((b"\xff\xfe", b"\xfe\xff"))
    if (marked and zeros[1] > 0) or (len(begin) >= 8 and zeros[1] > 0.9 and zeros[0] < 0.6):
        raise ValueError(f"The corpus '{source}' cannot be read as UTF-8 text (it is UTF-16): save it as UTF-8.")


def _records(prefix: str, name: str, lines: Iterable[str], source: str) -> Iterator[Found]:
    named = told_by_name(name)
    for number, line in enumerate(filter(str.strip, (line.removeprefix(MARK) for line in lines)), 1):
        where = f"Record {number} of '{source}'"
        try:
            record = schema.conform(json.loads(line), Record, "it")
            told = record.get("id")
            document = Document(f"{prefix}{number if told is None else told}", record["text"])
            for each in document:
                each.encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            reason = str(error).rstrip(".") if isinstance(error, schema.DataError) else "it is no JSON, or no text"
            raise ValueError(f"{where} is no JSON object with a 'text' ({reason}): repair it.") from error
        if document.text:
            yield Found(document, record.get("split"), named)


def parted(text: str) -> list[str]:
    """A text's documents: parted by lines <|endoftext|>, or, where it begins with one, at WikiText's ` = Title = `."""
    if not OPENING.match(text):
        return SEPARATOR.split(text)
    starts = [match.start() for match in TITLE.finditer(text)]
    return [text[begin:end] for begin, end in zip(starts, [*starts[1:], len(text)], strict=True)]
