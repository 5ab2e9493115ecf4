"""What a person sees while a run goes on: rich bars on a terminal, one line a cell elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from runner.schedule.schedule import RunEvent


class Display:
    """A watcher of `runner.schedule.schedule.run`: pass `display.tell` as `on_event`.

    On a terminal there is one bar for the whole run and one for each cell in work, with loss, tokens/s and time left.
    Elsewhere each cell that ends is one plain line; `quiet` prints failures only.
    """

    def __init__(self, total: int, console: Console | None = None, quiet: bool = False):
        self.console = console or Console(stderr=True)
        self.total, self.quiet, self.ended = total, quiet, 0
        self.begun: dict[str, float] = {}
        self.bars: dict[str, int] = {}
        self.live: Progress | None = None
        if self.console.is_terminal and not quiet:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.whole = self.live.add_task("all cells", total=total, note="")

    def __enter__(self) -> Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def expect(self, total: int) -> None:
        """Count on so many cells at least: results may ask for more than was known."""
        self.total = max(self.total, total)
        if self.live is not None:
            self.live.update(self.whole, total=self.total)

    def tell(self, event: RunEvent) -> None:
        """Take one event of the run."""
        if event.kind == "started":
            self._start(event)
        elif event.kind == "progress":
            self._progress(event)
        elif event.kind == "waiting":
            self._line(f"waiting for another run: {event.cell.describe()}")
        elif event.kind in ("finished", "failed", "skipped"):
            self._end(event)

    def _start(self, event: RunEvent) -> None:
        self.begun[event.key] = time.monotonic()
        if self.live is not None:
            self.bars[event.key] = self.live.add_task(event.cell.describe(), total=1.0, note="")

    def _progress(self, event: RunEvent) -> None:
        if self.live is None or event.key not in self.bars:
            return
        p = event.progress
        if "steps" in p:
            note = f"loss {p['loss']:.3f}  {p['tokens_per_second']:,.0f} tokens/s"
            self.live.update(self.bars[event.key], completed=p["step"] / p["steps"], note=note)
        elif "exam" in p:
            self.live.update(self.bars[event.key], completed=1.0, note=f"exam {p['exam']}")
        elif "length" in p:
            self.live.update(self.bars[event.key], note=f"context {p['length']}")

    def _end(self, event: RunEvent) -> None:
        self.ended += 1
        if self.live is not None:
            if event.key in self.bars:
                self.live.remove_task(self.bars.pop(event.key))
            self.live.update(self.whole, completed=self.ended)
        if event.kind == "skipped":
            return
        reasons = sorted({row["reason"] for row in event.rows if row["status"] == "failed"})
        seconds = time.monotonic() - self.begun.pop(event.key, time.monotonic())
        outcome = f"failed: {'; '.join(reasons)}" if event.kind == "failed" else "done"
        line = f"[{self.ended}/{self.total}] {event.cell.describe()}: {outcome} in {seconds:.1f} s"
        if event.kind == "failed" or not self.quiet:
            self._line(line)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)
        sys.stderr.flush()
