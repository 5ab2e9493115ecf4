"""Documents out of files: plain text, JSON lines, compressed or not, and folders and archives of such files."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tasks.corpus_splits import Document, Found, told_by_name

TEXT_FILES = (".txt", ".text", ".md", ".jsonl", ".tokens", ".raw")
SEPARATOR = re.compile(r"^<\|endoftext\|>\s*$", re.MULTILINE)
TITLE = re.compile(r"^ ?= [^=\n]+ = *$", re.MULTILINE)  # where an article of WikiText begins
OPENING = re.compile(r"\s*= [^=\n]+ = *$", re.MULTILINE)
ARCHIVES = (".tar", ".tgz", ".txz", ".zip")
UNREADABLE = (OSError, EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError)


def listed(path: Path) -> list[Path]:
    """The file itself, or the text files below a folder in the order of their names; ValueError for a folder without any."""
    if path.is_file():
        return [path]
    files = [file for file in path.rglob("*") if file.is_file() and set(file.suffixes) & set(TEXT_FILES)]
    if not files:
        raise ValueError(f"The folder '{path}' holds no text: put {', '.join(TEXT_FILES)} files into it.")
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def read(path: Path, sha256: str | None = None) -> Iterator[Found]:
    """The documents of a file, a folder or an archive, with the splits that they tell; those without text are left out.

    Files of JSON lines are read one line at a time; other files, and each archive, are held in memory whole.
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
            if set(file.suffixes) & set(ARCHIVES):
                yield from _archive(file, raw, prefix)
            else:
                yield from _documents(prefix, prefix.rstrip(":") or file.name, raw, str(file))
    except _unreadable() as error:
        raise ValueError(
            f"The corpus '{file}' cannot be read as UTF-8 text ({error}): repair or convert it."
        ) from error


def _check(file: Path, raw: BinaryIO, sha256: str) -> None:
    """ValueError for content of another sha256; `raw` is at its beginning again."""
    if hashlib.file_digest(raw, "sha256").hexdigest() != sha256:
        raise ValueError(
            f"The corpus '{file}' is damaged (its sha256 is not {sha256}): restore it from the repository."
        )
    raw.seek(0)


def _archive(file: Path, raw: BinaryIO, prefix: str) -> Iterator[Found]:
    """The documents of each text file in an archive, in the order of their names."""
    if ".zip" in file.suffixes:
        with zipfile.ZipFile(raw) as archive:
            found = [(name, archive.read(name)) for name in archive.namelist()]
    else:
        with tarfile.open(fileobj=io.BytesIO(_opened(file.name, raw).read())) as archive:
            found = [(member.name, archive.extractfile(member).read()) for member in archive if member.isfile()]
    texts = sorted((name, content) for name, content in found if set(PurePosixPath(name).suffixes) & set(TEXT_FILES))
    if not texts:
        raise ValueError(f"The archive '{file}' holds no text: put {', '.join(TEXT_FILES)} files into it.")
    for name, content in texts:
        source = f"{file}:{name}" if len(texts) > 1 else str(file)
        yield from _documents(f"{prefix}{name}:", name, io.BytesIO(content), source)


def _opened(name: str, raw: BinaryIO) -> BinaryIO:
    """The content without the compression that the name's last ending tells."""
    ways = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".txz": lzma.open,
        ".tgz": gzip.open,
        ".zst": _zstandard,
    }
    return ways.get(PurePosixPath(name).suffix, lambda plain: plain)(raw)


def _zstandard(raw: BinaryIO) -> BinaryIO:
    try:
        import zstandard
    except ImportError as error:
        raise ValueError(
            "A .zst file needs the package zstandard: pip install -e '.[text]', or repack it as .xz."
        ) from error
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


def _unreadable() -> tuple[type[Exception], ...]:
    """What reading a broken file raises."""
    zstandard = sys.modules.get("zstandard")
    return (*UNREADABLE, zstandard.ZstdError) if zstandard else UNREADABLE


def _documents(prefix: str, name: str, raw: BinaryIO, source: str) -> Iterator[Found]:
    lines = io.TextIOWrapper(_opened(name, raw), encoding="utf-8", newline="\n")
    if ".jsonl" in PurePosixPath(name).suffixes:
        yield from _records(prefix, name, lines, source)
        return
    for number, part in enumerate(parted(lines.read())):
        if part := part.strip("\n"):
            yield Found(Document(f"{prefix}{number}", part), named=told_by_name(name))


def _records(prefix: str, name: str, lines: Iterable[str], source: str) -> Iterator[Found]:
    named = told_by_name(name)
    for number, line in enumerate(filter(str.strip, lines), 1):
        try:
            record = json.loads(line)
            split, document = record.get("split"), Document(f"{prefix}{record.get('id', number)}", record["text"])
            if not isinstance(document.text, str):
                raise ValueError("text is no string")
            document.text.encode()  # half a surrogate pair is no text
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"Record {number} of '{source}' is no JSON object with a 'text': repair it.") from error
        if document.text:
            yield Found(document, split, named)


def parted(text: str) -> list[str]:
    """A text's documents: parted by lines <|endoftext|>, or, where it begins with one, at WikiText's ` = Title = `."""
    if not OPENING.match(text):
        return SEPARATOR.split(text)
    starts = [match.start() for match in TITLE.finditer(text)]
    return [text[begin:end] for begin, end in zip(starts, [*starts[1:], len(text)], strict=True)]
