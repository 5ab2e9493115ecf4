"""Packed files (xz) that somebody else may have written: unpacked up to a bound, and whatever is wrong told in a sentence."""

from __future__ import annotations

import lzma
from pathlib import Path

LARGEST = 2**30  # bytes of an unpacked file; the largest committed one takes 20 MB


class PackedError(ValueError):
    """A packed file that is damaged, cut off or larger than LARGEST when unpacked."""


def unpack(path: Path) -> bytes:
    """The bytes of a packed file. Raises PackedError, OSError where it cannot be read at all."""
    unpacking = lzma.LZMADecompressor()
    try:
        data = unpacking.decompress(Path(path).read_bytes(), max_length=LARGEST + 1)
    except lzma.LZMAError as error:
        raise PackedError(f"{path} is damaged ({error}).") from None
    except MemoryError:
        raise PackedError(f"{path} asks for more memory than there is to be unpacked.") from None
    if len(data) > LARGEST:
        raise PackedError(f"{path} takes more than {LARGEST:,} bytes when unpacked; it is not read.")
    if not unpacking.eof:
        raise PackedError(f"{path} is damaged (it ends too early).")
    if unpacking.unused_data:
        raise PackedError(f"{path} is damaged (something follows its end).")
    return data
