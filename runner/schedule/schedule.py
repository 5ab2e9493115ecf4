"""Runs the cells that are missing: training cells side by side, timing cells alone, every one recorded as it ends."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue as queues
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from pebble import ProcessExpired, ProcessPool

from results.cell import Cell
from results.rows import store
from results.rows.row import Identity
from runner.schedule import own_process, worker

TICK = 0.1
# glibc then keeps freed memory instead of giving it back and faulting it in again at every step.
ALLOCATOR = {"MALLOC_TOP_PAD_": str(2**27), "MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
TIMING_LOCK = Path(tempfile.gettempdir()) / "titanomachy-timing.lock"


@dataclass(frozen=True)
class RunEvent:
    """What a watcher of a run is told.

    kind: "started", "progress" (progress: step, steps, loss, tokens_per_second), "finished" or "failed" (rows),
    "skipped" (its rows stand already), "waiting" (another run is measuring it, or holds the machine for timing).
    """

    kind: str
    cell: Cell
    key: str
    progress: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Summary:
    """How many cells were measured, failed (a failed row was written) or skipped because their rows stand."""

    measured: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Summary) -> Summary:
        return Summary(self.measured + other.measured, self.failed + other.failed, self.skipped + other.skipped)

    @property
    def total(self) -> int:
        return self.measured + self.failed + self.skipped


def run(
    cells: Sequence[Cell],
    measure: worker.Measure,
    identify: Callable[[Cell], Identity],
    rows_path: Path,
    *,
    workers: int = 1,
    timeout: float | None = None,
    retry_failed: bool = False,
    initializer: Callable[..., None] | None = None,
    initargs: Sequence[Any] = (),
    on_event: Callable[[RunEvent], None] | None = None,
    cluster: Cluster | None = None,
) -> Summary:
    """Measure every cell whose key has no rows yet and append its rows to `rows_path` as it ends.

    `measure(cell, progress)` and `initializer(*initargs)` run in spawned workers, so both must be importable; measure
    returns a Measured, or finished rows. A cell that names files of the user's has a process of its own. A worker
    that dies or takes longer than `timeout` seconds costs that cell alone. With `cluster` its nodes measure, as many
    cells at once as it says, and this process records.
    Raises RecordError if rows cannot be written, RuntimeError if workers cannot start; KeyboardInterrupt passes
    through after the workers are stopped. What was recorded before stands in every case.
    """
    jobs = [Job(cell, identify(cell)) for cell in cells]
    retry_before = store.now() if retry_failed else None
    work = Work(measure, identify, Path(rows_path), timeout, retry_before, initializer, tuple(initargs), on_event)
    standing: dict[str, list[dict[str, Any]]] = {}
    for row in store.read(work.rows_path):
        standing.setdefault(row["cell"], []).append(row)
    missing: dict[str, Job] = {}
    for job in jobs:
        if job.key in missing or worker.stands(standing.get(job.key, []), retry_before):
            work.finish("skipped", job)
        else:
            missing[job.key] = job
    side_by_side = [job for job in missing.values() if not job.cell.is_timed]
    alone = [job for job in missing.values() if job.cell.is_timed]
    if cluster is not None:
        work.spread(side_by_side, cluster, timed=False)
        work.spread(alone, cluster, timed=True)
        return work.summary
    work.batch(side_by_side, workers, threads=1)
    for threads, group in itertools.groupby(alone, key=lambda job: job.cell.threads):
        work.batch(list(group), 1, threads, machine_lock=FileLock(TIMING_LOCK, mode=0o666))
    return work.summary


@dataclass(frozen=True)
class Job:
    """A cell of a run, and what is known of it."""

    cell: Cell
    identity: Identity

    @property
    def key(self) -> str:
        return self.identity.key


class Cluster(Protocol):
    """Other machines that measure: `runner.schedule.ray_cluster.RayCluster`."""

    def drain(self, work: Work, jobs: list[Job], timed: bool) -> list[Job]:
        """Measure jobs and record them; returns those that another run has claimed."""


@dataclass
class Work:
    """One call of `run`: what measures, where rows go, and what has become of the cells so far."""

    measure: worker.Measure
    identify: Callable[[Cell], Identity]
    rows_path: Path
    timeout: float | None
    retry_before: str | None
    initializer: Callable[..., None] | None
    initargs: tuple
    on_event: Callable[[RunEvent], None] | None
    summary: Summary = field(default_factory=Summary)
    words: queues.SimpleQueue = field(default_factory=queues.SimpleQueue)  # of cells in processes of their own

    def batch(self, jobs: list[Job], workers: int, threads: int, machine_lock: FileLock | None = None) -> None:
        """Measure jobs in a pool of their own; those that another run has claimed come last."""
        if not jobs:
            return
        workers = min(workers, len(jobs))
        with _held(environment_of(threads)) as environment, self._pool(workers, environment) as (pool, queue):
            while jobs:
                if machine_lock is not None:
                    self._wait_for_machine(machine_lock, jobs[0])
                with machine_lock or nullcontext():
                    jobs = self._drain(pool, queue, jobs, workers)
                self.wait_for_others(jobs)

    def spread(self, jobs: list[Job], cluster: Cluster, timed: bool) -> None:
        """Measure jobs on a cluster; those that another run has claimed come last."""
        while jobs:
            jobs = cluster.drain(self, jobs, timed)
            self.wait_for_others(jobs)

    @contextmanager
    def _pool(self, workers: int, environment: dict[str, str]) -> Iterator[tuple[ProcessPool, Any]]:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        arguments = (queue, os.getpid(), environment, self.initializer, self.initargs)
        pool = ProcessPool(workers, initializer=worker.start, initargs=arguments, context=context)
        try:
            yield pool, queue
            pool.close()
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.join()
            queue.close()

    def _drain(self, pool: ProcessPool, queue: Any, jobs: list[Job], workers: int) -> list[Job]:
        """Measure jobs, as many at once as the pool has workers; returns those that another run has claimed."""
        waiting, claimed = list(reversed(jobs)), []
        running: dict[Future, Job] = {}
        how = {"initializer": self.initializer, "initargs": self.initargs, "timeout": self.timeout}
        with own_process.processes(**how, tell=self.words.put) as alone:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop()
                    arguments = (job.cell, job.identity, self.rows_path, self.measure, self.retry_before)
                    if job.cell.model_files:
                        future = alone(arguments, environment_of(job.cell.threads))
                    else:
                        future = pool.schedule(worker.work, args=arguments, timeout=self.timeout)
                    running[future] = job
                done, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
                self._forward(queue, {job.key: job for job in running.values()})
                for future in done:
                    job = running.pop(future)
                    if self._collect(future, job) == "claimed":
                        claimed.append(job)
        return claimed

    def _forward(self, queue: Any, running: dict[str, Job]) -> None:
        """Pass on what workers say; a word that comes after its cell has ended is dropped."""
        for source in (queue, self.words):
            with suppress(queues.Empty):
                while True:
                    key, kind, progress = source.get_nowait()
                    if key in running:
                        self.tell(RunEvent(kind, running[key].cell, key, progress=progress))

    def _collect(self, future: Future, job: Job) -> str:
        try:
            outcome, rows = future.result()
        except TimeoutError:
            outcome, rows = self._lost(job, f"timed out after {self.timeout:g} s")
        except ProcessExpired as error:
            code = error.exitcode
            outcome, rows = self._lost(job, f"worker died ({f'signal {-code}' if code < 0 else f'exit code {code}'})")
        except BrokenProcessPool as error:
            raise RuntimeError("The worker processes end before they can work; run one cell to see why.") from error
        if outcome == "measured":
            self.measured(job, rows)
        elif outcome == "stands":
            self.finish("skipped", job, rows)
        return outcome

    def _lost(self, job: Job, reason: str) -> tuple[str, list]:
        """A worker that was lost leaves a failed row, unless it had recorded its cell just before."""
        with suppress(Timeout), worker.claim(self.rows_path, job.key).acquire(blocking=False):
            standing = [row for row in store.read(self.rows_path) if row["cell"] == job.key]
            if worker.stands(standing, self.retry_before):
                return "measured", standing
            rows = store.failure(job.cell, job.identity, reason)
            store.append(self.rows_path, rows)
            return "measured", rows
        return "claimed", []

    def wait_for_others(self, claimed: list[Job]) -> None:
        """Return when one of the cells that other runs have claimed is free again, measured or not."""
        for job in claimed:
            self.tell(RunEvent("waiting", job.cell, job.key))
        while claimed:
            for job in claimed:
                with suppress(Timeout), worker.claim(self.rows_path, job.key).acquire(blocking=False):
                    return
            time.sleep(TICK)

    def _wait_for_machine(self, lock: FileLock, job: Job) -> None:
        try:
            with lock.acquire(blocking=False):
                return
        except Timeout:
            self.tell(RunEvent("waiting", job.cell, job.key))

    def measured(self, job: Job, rows: list[dict[str, Any]]) -> None:
        """Count and tell a cell whose rows are recorded."""
        self.finish("failed" if all(row["status"] == "failed" for row in rows) else "finished", job, rows)

    def finish(self, kind: str, job: Job, rows: list[dict[str, Any]] | None = None) -> None:
        counter = {"finished": "measured", "failed": "failed", "skipped": "skipped"}[kind]
        setattr(self.summary, counter, getattr(self.summary, counter) + 1)
        self.tell(RunEvent(kind, job.cell, job.key, rows=rows or []))

    def tell(self, event: RunEvent) -> None:
        if self.on_event is not None:
            self.on_event(event)


def environment_of(threads: int) -> dict[str, str]:
    """What a worker's environment must hold before it imports a numeric library."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | ALLOCATOR


@contextmanager
def _held(wanted: dict[str, str]) -> Iterator[dict[str, str]]:
    """Hold this process's environment to what is wanted, for the workers that start meanwhile.

    Numeric libraries read it once, when they are imported; a spawned worker may import them before it runs any code
    of ours, so the parent's environment must be right already.
    """
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield wanted
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
