"""A bar for preparing what is large: reading a corpus, turning it into tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

LARGE = 2**26  # bytes after which a person should see that something goes on

Item = TypeVar("Item")


def watched(items: Iterable[Item], size: Callable[[Item], int], what: str) -> Iterator[Item]:
    """The items; once they have many bytes, a terminal shows how many, how fast and for how long."""
    columns = TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    seen, told = 0, bar.add_task(what, total=None)
    try:
        for item in items:
            yield item
            seen += size(item)
            if seen > LARGE and bar.console.is_terminal:
                bar.start()
                bar.update(told, completed=seen)
    finally:
        bar.stop()
