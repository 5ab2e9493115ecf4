"""What is packed, read in pieces and within bounds: compressed files, and the members of archives one after another."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

ARCHIVES = (".tar", ".tgz", ".txz", ".zip")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
MOST_TIMES = (
    100  # no text of many documents is packed closer: prose takes a third to a fifth, logs a tenth to a thirtieth
)
HARMLESS = 2**26  # bytes that may come out of anything
IN_MEMORY = 2**26  # bytes of an unpacked archive that are held there; more go to a temporary file


class Member(NamedTuple):
    """A text file of an archive: its name, the bytes that it takes packed, and how it is opened."""

    name: str
    packed: int
    open: Callable[[], BinaryIO]


class Bounded(io.RawIOBase):
    """What a stream gives, until that is far more than what it was packed in can hold of text."""

    def __init__(self, stream: BinaryIO, packed: int, source: str) -> None:
        self.stream, self.source, self.given = stream, source, 0
        self.most = max(HARMLESS, MOST_TIMES * packed)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """As many bytes as come; ValueError once they are too many."""
        found = self.stream.read(len(buffer))
        self.given += len(found)
        if self.given > self.most:
            raise ValueError(
                f"The corpus '{self.source}' unpacks to more than {MOST_TIMES} times its size, which no text does: unpack "
                "it yourself if it is one."
            )
        buffer[: len(found)] = found
        return len(found)


def ending(name: str, but: tuple[str, ...]) -> str:
    """The last ending of a file's name that is none of `but`, in small letters: "a.JSONL.gz" -> ".jsonl"; "" for none."""
    return next((each.lower() for each in reversed(PurePosixPath(name).suffixes) if each.lower() not in but), "")


def opened(name: str, raw: BinaryIO, packed: int, source: str) -> io.RawIOBase:
    """The content without the compression that the name's last ending tells; `packed` is its size."""
    ways = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".txz": lzma.open,
        ".tgz": gzip.open,
        ".zst": partial(_zstandard, source=source),
    }
    way = ways.get(PurePosixPath(name).suffix.lower())
    return Bounded(way(raw) if way else raw, packed, source)


def _zstandard(raw: BinaryIO, source: str) -> BinaryIO:
    try:
        import zstandard
    except ImportError as error:
        raise ValueError(
            f"{source}: a .zst file needs the package zstandard: pip install -e '.[text]', or repack it as .xz."
        ) from error
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


def zstandard_errors() -> tuple[type[Exception], ...]:
    """What zstandard raises on a broken file, where it is loaded."""
    zstandard = sys.modules.get("zstandard")
    return (zstandard.ZstdError,) if zstandard else ()


@contextmanager
def members(file: Path, raw: BinaryIO, wanted: Callable[[str], bool]) -> Iterator[list[Member]]:
    """The members of an archive whose names are wanted, in the order of their names; links and devices are none.

    One is read at a time; a compressed tar lies unpacked in a temporary file meanwhile.
    """
    if ending(file.name, COMPRESSIONS) == ".zip":
        with zipfile.ZipFile(raw) as archive:
            yield _sorted(
                Member(info.filename, info.compress_size, partial(_zipped, archive, info, file))
                for info in archive.infolist()
                if not info.is_dir() and wanted(info.filename)
            )
        return
    size = file.stat().st_size
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as plain:
        shutil.copyfileobj(opened(file.name, raw, size, str(file)), plain)
        plain.seek(0)
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            yield _sorted(
                Member(info.name, size, partial(_extracted, archive, info, size, file))
                for info in archive
                if info.isfile() and wanted(info.name)
            )


def _sorted(found: Iterator[Member]) -> list[Member]:
    return sorted(found, key=lambda member: member.name)


def _zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> BinaryIO:
    return io.BufferedReader(Bounded(archive.open(info), info.compress_size, f"{file}:{info.filename}"))


def _extracted(archive: tarfile.TarFile, info: tarfile.TarInfo, size: int, file: Path) -> BinaryIO:
    """A member, bounded too: a hole of a sparse one takes no room in the archive."""
    return io.BufferedReader(Bounded(archive.extractfile(info), size, f"{file}:{info.name}"))
