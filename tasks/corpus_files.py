"""Documents out of files: plain text, JSON lines, compressed or not, and folders and archives of such files."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

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


def read(path: Path, sha256: str | None = None) -> list[Found]:
    """The documents of a file, a folder or an archive, with the splits that they tell; those without text are left out.

    Raises ValueError for what is damaged (its sha256 is not the one given) or is no UTF-8 text.
    """
    if path.is_file():
        return list(_file(path, "", sha256))
    return [found for file in listed(path) for found in _file(file, file.relative_to(path).as_posix() + ":")]


def _file(file: Path, prefix: str, sha256: str | None = None) -> Iterator[Found]:
    raw = file.read_bytes()
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
        raise ValueError(
            f"The corpus '{file}' is damaged (its sha256 is not {sha256}): restore it from the repository."
        )
    try:
        if set(file.suffixes) & set(ARCHIVES):
            parts = [(f"{prefix}{name}:", name, content) for name, content in _members(file, raw)]
        else:
            parts = [(prefix, prefix.rstrip(":") or file.name, raw)]
        texts = [(before, name, _plain(name, content).decode("utf-8")) for before, name, content in parts]
    except UNREADABLE as error:
        raise ValueError(
            f"The corpus '{file}' cannot be read as UTF-8 text ({error}): repair or convert it."
        ) from error
    if not texts:
        raise ValueError(f"The archive '{file}' holds no text: put {', '.join(TEXT_FILES)} files into it.")
    for before, name, text in texts:
        yield from _documents(before, name, text, f"{file}:{name}" if len(texts) > 1 else str(file))


def _members(file: Path, raw: bytes) -> list[tuple[str, bytes]]:
    """Name and content of each text file in an archive, in the order of their names."""
    if ".zip" in file.suffixes:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            found = [(name, archive.read(name)) for name in archive.namelist()]
    else:
        plain = _plain(file.name, raw) if file.suffix == ".zst" else raw
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            found = [(member.name, archive.extractfile(member).read()) for member in archive if member.isfile()]
    return sorted((name, content) for name, content in found if set(PurePosixPath(name).suffixes) & set(TEXT_FILES))


def _plain(name: str, raw: bytes) -> bytes:
    """The content without the compression that the name's last ending tells."""
    ways = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress, ".zst": _zstandard}
    return ways.get(PurePosixPath(name).suffix, bytes)(raw)


def _zstandard(raw: bytes) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise ValueError(
            "A .zst file needs the package zstandard: pip install -e '.[text]', or repack it as .xz."
        ) from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True) as reader:
            return reader.read()
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error


def _documents(prefix: str, name: str, text: str, source: str) -> Iterator[Found]:
    if ".jsonl" not in PurePosixPath(name).suffixes:
        parts = [part.strip("\n") for part in parted(text)]
        for number, part in enumerate(parts):
            if part:
                yield Found(Document(f"{prefix}{number}", part), named=told_by_name(name))
        return
    for number, line in enumerate(filter(str.strip, text.split("\n")), 1):
        try:
            record = json.loads(line)
            split, document = record.get("split"), Document(f"{prefix}{record.get('id', number)}", record["text"])
            if not isinstance(document.text, str):
                raise ValueError("text is no string")
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"Record {number} of '{source}' is no JSON object with a 'text': repair it.") from error
        if document.text:
            yield Found(document, split, told_by_name(name))


def parted(text: str) -> list[str]:
    """A text's documents: parted by lines <|endoftext|>, or, where it begins with one, at WikiText's ` = Title = `."""
    if not OPENING.match(text):
        return SEPARATOR.split(text)
    starts = [match.start() for match in TITLE.finditer(text)]
    return [text[begin:end] for begin, end in zip(starts, [*starts[1:], len(text)], strict=True)]
