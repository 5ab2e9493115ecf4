"""Many arrays in one: the texts of a split, or their tokens, in memory or mapped from a file, whatever their size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np


class Parted(Sequence[np.ndarray]):
    """Arrays that lie in one, each behind a separator. None is copied when it is asked for, and none can be written to."""

    def __init__(self, flat: np.ndarray, starts: np.ndarray) -> None:
        """`starts` [parts + 1]: where each separator lies in `flat`, and where the last part ends."""
        self.flat, self.starts = flat, starts
        if flat.flags.owndata:
            flat.flags.writeable = False

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """A part without its separator."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.flat[self.starts[index] + 1 : self.starts[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Of each part without its separator, [parts]."""
        return np.diff(self.starts) - 1

    @classmethod
    def of(cls, parts: Sequence[np.ndarray], separator: int, dtype: np.dtype) -> Parted:
        """Parts that are in memory."""
        before = np.array([separator], dtype)
        pieces = [piece.astype(dtype, copy=False) for part in parts for piece in (before, part)]
        return cls(np.concatenate([np.empty(0, dtype), *pieces]), _starts([len(part) for part in parts]))

    @classmethod
    def mapped(cls, path: Path, dtype: np.dtype) -> Parted:
        """What a `RaggedWriter` wrote at this path; only what is looked at is read."""
        starts = np.load(_beside(path), mmap_mode="r")
        return cls(np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype), starts)


class RaggedWriter:
    """Writes parts to a file as they come; a context manager."""

    def __init__(self, path: Path, separator: int, dtype: np.dtype) -> None:
        self.path, self.dtype = path, dtype
        self._before = np.array([separator], dtype).tobytes()
        self._lengths: list[int] = []

    def __enter__(self) -> RaggedWriter:
        self._file = self.path.open("wb")
        return self

    def add(self, part: np.ndarray) -> None:
        """One part more."""
        self._file.write(self._before)
        self._file.write(part.astype(self.dtype, copy=False).tobytes())
        self._lengths.append(len(part))

    def extend(self, parts: Iterable[np.ndarray]) -> None:
        """Several more."""
        for part in parts:
            self.add(part)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            np.save(_beside(self.path), _starts(self._lengths))


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(np.array(lengths, np.int64) + 1)))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".starts.npy")
